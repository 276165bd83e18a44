"""What happens to an approval when a step is cut, cancelled or refused, whichever step it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio import to_thread
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, CancelledError

from outbox_workflows.approval.definitions import ApprovalWorkflow
from outbox_workflows.approval.types import ApprovalCommand, Standing
from tests.support.stage import Stage
from tests.support.step_worker import dying_worker
from tests.support.steps import Gate
from tests.workflows.approval.scenarios import (
    ALICE,
    BOB,
    BRIEFLY_S,
    DAVE,
    REQUESTER,
    begin,
    command,
    failing,
    send_signal,
    standing,
)

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Course:
    """How an approval gets to a step, and on from there to its end."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    commands: tuple[tuple[str, ApprovalCommand], ...] = ()
    """By signal, so that no caller waits for the answer."""
    then: tuple[str, ApprovalCommand] | None = None
    ends: str = "approved"
    ended_in_step: bool = False
    """The decision has been made before the step is recorded, so that a cancellation comes too late."""


APPROVE = ("approve", command(ALICE, command_id="yes"))
SHORT = {"answer_within_s": BRIEFLY_S, "remind_every_s": 0}
COURSES = {
    "requested": Course(then=APPROVE),
    "reminded": Course({"remind_every_s": BRIEFLY_S}, then=APPROVE),
    "escalated": Course({"approvers": [ALICE, BOB], **SHORT}, ends="expired"),
    "delegated": Course(commands=(("delegate", command(ALICE, to=DAVE)),), then=APPROVE),
    "refused": Course(commands=(("approve", command(BOB)),), then=APPROVE),
    "decided": Course(commands=(APPROVE,), ended_in_step=True),
    "cancelled": Course(commands=(("cancel", command(REQUESTER)),), ends="cancelled", ended_in_step=True),
    "expired": Course(SHORT, ends="expired", ended_in_step=True),
    "mail-requested": Course(then=APPROVE),
}
RECORDED = [step for step in COURSES if not step.startswith("mail") and step != "refused"]


async def follow(stage: Stage, course: Course) -> WorkflowHandle[Any, Standing]:
    """Start an approval that leads to the step."""
    handle = await begin(stage, step_timeout_s=3.0, **course.asked)
    for verb, given in course.commands:
        await send_signal(stage, handle, verb, given)
    return handle


async def finish(stage: Stage, handle: WorkflowHandle[Any, Standing], course: Course) -> Standing:
    """Lead it from there to its end."""
    if course.then is not None:
        await send_signal(stage, handle, *course.then)
    return await handle.result()


async def require_each_step_once(stage: Stage, handle: WorkflowHandle[Any, Standing]) -> None:
    """Every step is in the trail, in the events and in the order, once; every mail is noted once."""
    final = (await handle.query(ApprovalWorkflow.standing)).revision
    events = await stage.fetch("select (data ->> 'revision')::int as revision from app.event order by seq")
    assert [event["revision"] for event in events] == list(range(1, final + 1))
    entries = [entry for entry in await stage.audited(handle.id) if entry != "mailed"]
    assert len(entries) == final
    mailed = await stage.fetch(
        "select detail ->> 'about' as about, detail ->> 'to' as who from app.audit where action = 'mailed'"
    )
    assert len(set(mailed)) == len(mailed) == len(stage.mails())


async def state_of(stage: Stage, handle: WorkflowHandle[Any, Standing]) -> str:
    [row] = await stage.fetch("select state from app.approval where workflow_id = $1", handle.id)
    return str(row["state"])


@pytest.mark.parametrize("step", COURSES)
async def test_a_worker_that_is_stopped_in_a_step_is_replaced_and_nothing_happens_twice(
    stage: Stage, step: str
) -> None:
    course, gate = COURSES[step], Gate(step)
    async with stage.worker(gate):
        handle = await follow(stage, course)
        await gate.wait_reached()  # the step has had its effect, and its answer is lost
    async with stage.worker():
        ended = await finish(stage, handle, course)
        await require_each_step_once(stage, handle)
    assert (ended.state, await state_of(stage, handle)) == (course.ends, course.ends)


async def test_a_process_that_is_killed_in_a_step_is_replaced_and_nothing_happens_twice(stage: Stage) -> None:
    course = COURSES["decided"]
    handle = await follow(stage, course)
    with dying_worker(stage, "approval", "decided") as process:
        await to_thread.run_sync(process.wait)
    assert process.returncode == -9
    assert await state_of(stage, handle) == "approved"
    async with stage.worker():
        ended = await finish(stage, handle, course)
        await require_each_step_once(stage, handle)
    assert ended.state == "approved"


@pytest.mark.parametrize("step", COURSES)
async def test_cancelled_in_a_step_it_is_recorded_as_cancelled_unless_it_was_decided(stage: Stage, step: str) -> None:
    course, gate = COURSES[step], Gate(step, "before")
    async with stage.worker(gate):
        handle = await follow(stage, course)
        await gate.wait_reached()
        await stage.cancel(handle.id, "the laptop was found")
        gate.open()
        if course.ended_in_step:
            assert (await handle.result()).state == course.ends
        else:
            assert isinstance((await failing(handle.result)).cause, CancelledError)
        await require_each_step_once(stage, handle)
    assert await state_of(stage, handle) == (course.ends if course.ended_in_step else "cancelled")
    if not course.ended_in_step:
        [row] = await stage.fetch("select decided_by, comment from app.approval")
        assert row["decided_by"] == "system"
        assert "the laptop was found" in row["comment"]


@pytest.mark.parametrize("step", RECORDED)
async def test_a_step_that_the_database_refuses_ends_the_approval_as_failed(stage: Stage, step: str) -> None:
    course = COURSES[step]
    await stage.refuse(step)
    async with stage.worker():
        handle = await follow(stage, course)
        error = (await failing(handle.result)).cause
    assert isinstance(error, ApplicationError)
    assert error.type == "ApprovalFailed"
    assert f"the database refuses {step}" in error.message
    assert await state_of(stage, handle) == "failed"
    trail = [action for action in await stage.audited(handle.id) if action != "mailed"]
    assert step not in trail
    assert trail[-1] == "failed"
    assert (await stage.heard("approval.failed"))[-1]["type"] == "approval.failed"
    assert any(mail["To"] == REQUESTER and "failed" in mail["Subject"] for mail in stage.mails())


async def test_approver_gets_an_error_if_the_decision_could_not_be_recorded(stage: Stage) -> None:
    await stage.refuse("decided")
    async with stage.worker():
        handle = await begin(stage)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await failing(handle.result)
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.message.startswith("decided-2 could not be recorded:")


async def test_a_refused_note_does_not_undo_what_was_decided(stage: Stage) -> None:
    await stage.refuse("refused")
    gate = Gate("mail-decided", "before")
    async with stage.worker(gate):
        handle = await begin(stage)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await gate.wait_reached()  # decided and recorded, but still open
        await send_signal(stage, handle, "reject", command(ALICE))
        await standing(handle, lambda found: found.revision == 3)
        gate.open()
        assert (await handle.result()).state == "approved"
    assert await state_of(stage, handle) == "approved"
