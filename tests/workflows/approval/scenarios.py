"""The branches of both approvals, played from a committed row to their end. See tests/support/tools/histories.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import orjson
from temporalio.client import WorkflowFailureError, WorkflowHandle

from outbox_workflows.approval.activities import ApprovalActivities
from outbox_workflows.approval.definitions import WORKFLOWS, ApprovalWorkflow
from outbox_workflows.approval.types import ApprovalCommand, Standing
from tests.support.eventually import eventually
from tests.support.stage import Family, Scenarios, Stage

FAMILY = Family(WORKFLOWS, lambda application, mailer: ApprovalActivities(application, mailer).all())
SERVER_CONFIG = {"limit.historyCount.suggestContinueAsNew": 60}

ALICE, BOB, CAROL, DAVE, REQUESTER = (f"{name}@example.com" for name in ("alice", "bob", "carol", "dave", "rita"))
BRIEFLY_S = 0.4


def request(stage: Stage, **chosen: Any) -> dict[str, Any]:
    """A request as a producer writes it. One approver, unless `approvers` says otherwise."""
    about = {"tenant_id": str(stage.tenant_id), "approval_id": uuid4().hex, "subject": "A new laptop"}
    who = {"requested_by": REQUESTER} | ({} if "approvers" in chosen else {"approver": ALICE})
    return about | who | chosen


def command(actor: str, **chosen: str) -> ApprovalCommand:
    """A command, with an id of its own unless it is given one."""
    return ApprovalCommand(**({"command_id": uuid4().hex, "actor": actor} | chosen))


async def begin(stage: Stage, **chosen: Any) -> WorkflowHandle[Any, Standing]:
    """Commit a request, and return once the relay has started its workflow."""
    kind = "EscalatingApproval" if "approvers" in chosen else "Approval"
    asked = request(stage, **chosen)
    workflow_id = f"approval-{asked['approval_id']}"
    await stage.start(kind, workflow_id, asked)
    return stage.client.get_workflow_handle(workflow_id, result_type=Standing)


async def send_signal(stage: Stage, handle: WorkflowHandle[Any, Any], verb: str, given: ApprovalCommand) -> None:
    """Commit a command as a signal, and return once the relay has delivered it."""
    await stage.signal(handle.id, verb, orjson.loads(orjson.dumps(given)))


async def standing(handle: WorkflowHandle[Any, Any], until: Callable[[Standing], bool]) -> Standing:
    """The query's answer, once it satisfies `until`."""
    return await eventually(lambda: handle.query(ApprovalWorkflow.standing), until)


async def approved(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE, comment="of course"))
        await handle.result()
    return handle.id


async def rejected_by_signal(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage)
        rejection = command(ALICE, comment="too dear")
        await send_signal(stage, handle, "reject", rejection)
        await handle.result()
    return handle.id


async def cancelled_by_requester(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage)
        await handle.execute_update(ApprovalWorkflow.cancel, command(REQUESTER))
        await handle.result()
    return handle.id


async def cancelled_in_temporal(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage)
        await standing(handle, lambda found: found.revision == 1)
        await stage.cancel(handle.id)
        await failing(handle.result)
    return handle.id


async def reminded_and_expired(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, answer_within_s=3 * BRIEFLY_S, remind_every_s=BRIEFLY_S)
        await handle.result()
    return handle.id


async def escalated_and_approved(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB], answer_within_s=5 * BRIEFLY_S, remind_every_s=0)
        await standing(handle, lambda found: found.level == 2)
        await handle.execute_update(ApprovalWorkflow.approve, command(BOB))
        await handle.result()
    return handle.id


async def delegated_and_rejected(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB])
        await handle.execute_update(ApprovalWorkflow.delegate, command(ALICE, to=DAVE))
        await handle.execute_update(ApprovalWorkflow.reject, command(DAVE))
        await handle.result()
    return handle.id


async def refused_signal(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB])
        await send_signal(stage, handle, "approve", command(BOB))
        await standing(handle, lambda found: found.revision == 2)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    return handle.id


async def unsent_mail(stage: Stage) -> str:
    stage.break_mail()
    async with stage.worker():
        handle = await begin(stage, mail_within_s=BRIEFLY_S)
        await standing(handle, lambda found: found.revision == 2)
        stage.repair_mail()
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    return handle.id


async def failed(stage: Stage) -> str:
    await stage.refuse("decided")
    try:
        async with stage.worker():
            handle = await begin(stage)
            await send_signal(stage, handle, "approve", command(ALICE))
            await failing(handle.result)
    finally:
        await stage.accept("decided")
    return handle.id


async def invalid(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approver=REQUESTER)
        await failing(handle.result)
    return handle.id


async def unreadable(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approver=7)
        await failing(handle.result)
    return handle.id


async def unreadable_signal(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage)
        await stage.signal(handle.id, "approve", {"command_id": 5, "actor": ALICE})
        await standing(handle, lambda found: found.revision == 2)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    return handle.id


async def continued(stage: Stage) -> str:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB])
        await continue_as_new(stage, handle)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    return handle.id


async def continue_as_new(stage: Stage, handle: WorkflowHandle[Any, Any]) -> None:
    """Refuse Bob so often that the workflow continues as new."""
    first = (await handle.describe()).run_id
    for _ in range(20):
        before = (await handle.query(ApprovalWorkflow.standing)).revision
        await send_signal(stage, handle, "approve", command(BOB))
        await standing(handle, lambda found, before=before: found.revision > before)  # type: ignore[misc]
        if (await handle.describe()).run_id != first:
            return
    raise AssertionError("it did not continue as new: does the server suggest it early?")


async def failing(call: Callable[[], Awaitable[object]]) -> WorkflowFailureError:
    """How a workflow failed that has to."""
    try:
        result = await call()
    except WorkflowFailureError as error:
        return error
    raise AssertionError(f"it did not fail, but returned {result}")


SCENARIOS: Scenarios = {
    "approved": approved,
    "rejected-by-signal": rejected_by_signal,
    "cancelled-by-requester": cancelled_by_requester,
    "cancelled-in-temporal": cancelled_in_temporal,
    "reminded-and-expired": reminded_and_expired,
    "escalated-and-approved": escalated_and_approved,
    "delegated-and-rejected": delegated_and_rejected,
    "refused-signal": refused_signal,
    "unsent-mail": unsent_mail,
    "failed": failed,
    "invalid": invalid,
    "unreadable": unreadable,
    "unreadable-signal": unreadable_signal,
    "continued": continued,
}
