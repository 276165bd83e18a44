"""Approvals end to end: from a committed row, through the relay, to the decision and the database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import anyio
import orjson
import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from outbox_workflows.approval.activities import ApprovalActivities
from outbox_workflows.approval.definitions import WORKFLOWS, ApprovalWorkflow
from outbox_workflows.approval.types import ApprovalCommand, Standing
from outbox_workflows.shared.mail import Mail
from tests.support.eventually import eventually
from tests.support.stage import Family, Stage
from tests.support.steps import Gate
from tests.workflows.approval.scenarios import (
    ALICE,
    BOB,
    DAVE,
    REQUESTER,
    begin,
    command,
    failing,
    request,
    send_signal,
    standing,
)

pytestmark = pytest.mark.timeout(120)
ROW = "select * from app.approval where workflow_id = $1"


async def row(stage: Stage, handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    """The approval as the database has it."""
    [found] = await stage.fetch(ROW, handle.id)
    return dict(found)


async def steps(stage: Stage, handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The actions in the audit trail, in order, without the mails, which go beside."""
    return [action for action in await stage.audited(handle.id) if action != "mailed"]


async def refusal(
    handle: WorkflowHandle[Any, Any], verb: str, sent: ApprovalCommand | dict[str, Any]
) -> tuple[str | None, str]:
    """The code and the reason with which an update was refused."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update(verb, sent)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.type, caught.value.cause.message


async def test_a_committed_request_is_approved_by_an_update_that_answers(stage: Stage) -> None:
    async with stage.worker():
        handle = await begin(stage)
        answer = await handle.execute_update(ApprovalWorkflow.approve, command(ALICE, comment="of course"))
        kept = await row(stage, handle)  # the answer comes when the decision is in the database
        assert await handle.result() == answer
    assert (answer.state, answer.decided_by, answer.comment) == ("approved", ALICE, "of course")
    assert (kept["state"], kept["decided_by"], kept["decided_at"]) == ("approved", ALICE, answer.decided_at)
    assert await steps(stage, handle) == ["requested", "decided"]
    events = await stage.heard("approval.decided")
    assert [event["type"] for event in events] == ["approval.requested", "approval.decided"]
    assert (events[-1]["state"], events[-1]["actor"], events[-1]["comment"]) == ("approved", ALICE, "of course")
    mails = {mail["To"]: mail for mail in stage.mails()}
    assert {to: mail["Subject"] for to, mail in mails.items()} == {
        ALICE: "Your decision is needed: A new laptop",
        REQUESTER: "Approved: A new laptop",
    }
    assert "of course" in mails[REQUESTER].get_content()


async def test_a_decision_that_arrives_twice_from_the_outbox_has_one_effect(stage: Stage) -> None:
    handle = await begin(stage)
    rejection = command(ALICE, comment="too dear")
    for _ in range(2):  # two messages, so Temporal cannot see that it is one command
        await send_signal(stage, handle, "reject", rejection)
    async with stage.worker():
        ended = await handle.result()
    assert (ended.state, ended.decided_by) == ("rejected", ALICE)
    assert await steps(stage, handle) == ["requested", "decided"]
    assert (await row(stage, handle))["comment"] == "too dear"


async def test_a_repeated_call_gets_the_same_answer_even_after_the_end(stage: Stage) -> None:
    decision = command(ALICE)
    async with stage.worker():
        handle = await begin(stage)
        answer = await handle.execute_update(ApprovalWorkflow.approve, decision, id=decision.command_id)
        await handle.result()
        assert await handle.execute_update(ApprovalWorkflow.approve, decision, id=decision.command_id) == answer
        with pytest.raises(RPCError, match="already completed"):
            await handle.execute_update(ApprovalWorkflow.reject, command(ALICE))


async def test_command_without_the_right_is_refused_with_a_reason_and_changes_nothing(stage: Stage) -> None:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB])
        code, reason = await refusal(handle, "approve", command(BOB))
        assert (code, reason.split(",")[0]) == ("NotYourTurn", f"{BOB} is not asked yet: it is the turn of {ALICE}")
        assert (await refusal(handle, "cancel", command(ALICE)))[0] == "NotTheRequester"
        assert (await refusal(handle, "delegate", command(ALICE, to=REQUESTER)))[0] == "InvalidDelegate"
        assert (await refusal(handle, "reject", ApprovalCommand(actor=ALICE)))[0] == "InvalidCommand"
        assert (await standing(handle, lambda found: found.revision > 0)).revision == 1
        await handle.execute_update(ApprovalWorkflow.cancel, command(REQUESTER))
        await handle.result()
    assert await steps(stage, handle) == ["requested", "cancelled"]


async def test_a_delegate_decides_in_place_of_the_approver(stage: Stage) -> None:
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB])
        assert (await handle.execute_update(ApprovalWorkflow.delegate, command(ALICE, to=DAVE))).delegate == DAVE
        assert (await row(stage, handle))["delegate"] == DAVE
        ended = await handle.execute_update(ApprovalWorkflow.approve, command(DAVE))
        await handle.result()
    assert (ended.state, ended.decided_by, ended.approver) == ("approved", DAVE, ALICE)
    assert await steps(stage, handle) == ["requested", "delegated", "decided"]
    assert [mail["Subject"] for mail in stage.mails() if mail["To"] == DAVE] == [
        "Your decision is needed: A new laptop"
    ]


async def test_of_racing_decisions_the_first_wins_and_the_others_get_that_answer(stage: Stage) -> None:
    gate = Gate("decided", "before")  # the race goes on until a decision is recorded
    answers: list[Standing] = []
    refusals: list[ApplicationError] = []

    async def update(who: str, verb: str) -> None:
        try:
            answers.append(await handle.execute_update(verb, command(who), result_type=Standing))
        except WorkflowUpdateFailedError as error:
            assert isinstance(error.cause, ApplicationError)
            refusals.append(error.cause)

    async def all_are_heard() -> Standing | None:
        """Two steps went before. Four signals and four updates: all but one, who waits or was a signal, are refused."""
        found = await handle.query(ApprovalWorkflow.standing)
        return found if found.revision - 2 + len(refusals) == 1 + 7 else None

    async with stage.worker(gate):
        handle = await begin(stage, approvers=[ALICE, BOB])
        await handle.execute_update(ApprovalWorkflow.delegate, command(ALICE, to=DAVE))
        async with anyio.create_task_group() as tasks:
            for who, verb in ((ALICE, "approve"), (DAVE, "reject"), (ALICE, "reject"), (DAVE, "approve")):
                tasks.start_soon(update, who, verb)
                tasks.start_soon(send_signal, stage, handle, verb, command(who))
            won = await eventually(all_are_heard, bool)
            gate.open()
        ended = await handle.result()
    assert won is not None
    assert (won.state, won.decided_by) == (ended.state, ended.decided_by)
    by_signal = len(refusals) == 4
    assert [(answer.state, answer.decided_by) for answer in answers] == [(ended.state, ended.decided_by)] * (
        not by_signal
    )
    refused = await stage.fetch(
        "select detail ->> 'code' as code, detail ->> 'reason' as reason from app.audit "
        "where workflow_id = $1 and action = 'refused'",
        handle.id,
    )
    reported = [(error.type, error.message) for error in refusals] + [
        (found["code"], found["reason"]) for found in refused
    ]
    assert len(reported) == 7
    assert {code for code, _ in reported} == {"AlreadyDecided"}
    assert all(reason.startswith(f"already {ended.state} by {ended.decided_by} at ") for _, reason in reported)
    assert await steps(stage, handle) == ["requested", "delegated", "decided"] + ["refused"] * len(refused)


async def test_a_request_that_makes_no_sense_fails_with_what_is_wrong(stage: Stage) -> None:
    async with stage.worker():
        handle = await begin(stage, approver=REQUESTER, subject="")
        error = (await failing(handle.result)).cause
    assert isinstance(error, ApplicationError)
    assert error.type == "InvalidRequest"
    assert error.message.split("; ") == [
        "subject is missing",
        f"{REQUESTER} is asked about a request of their own: name another person",
    ]
    assert await steps(stage, handle) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"approval_id": 7}, "approval_id must be a text, not a number"),
        ({"approvers": ALICE}, "approvers must be a list, not a text"),
        ({"earlier": {"standing": 7}}, "earlier.standing must be an object, not a number"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_a_request_with_a_wrong_type_in_it_fails_with_what_is_wrong(
    stage: Stage, wrong: dict[str, Any], says: str
) -> None:
    async with stage.worker():
        handle = await stage.start("EscalatingApproval", f"wrong-{uuid4()}", request(stage, approvers=[ALICE]) | wrong)
        error = (await failing(handle.result)).cause
    assert isinstance(error, ApplicationError)
    assert (error.type, error.message.split("; ")[0]) == ("InvalidRequest", says)


async def test_a_start_without_a_request_or_with_two_fails_with_what_is_wrong(stage: Stage) -> None:
    async with stage.worker():
        for arguments in ([], [{}, {}]):
            handle = await stage.client.start_workflow(
                "Approval", args=arguments, id=f"wrong-{uuid4()}", task_queue=stage.task_queue
            )
            error = (await failing(handle.result)).cause
            assert isinstance(error, ApplicationError)
            assert error.message == f"one JSON object is expected, not {len(arguments)} arguments"


async def test_a_command_with_a_wrong_type_in_it_is_refused_and_not_lost(stage: Stage) -> None:
    says = "command_id must be a text, not a number"
    async with stage.worker():
        handle = await begin(stage)
        await stage.signal(handle.id, "approve", {"command_id": 5, "actor": ALICE})
        await standing(handle, lambda found: found.revision == 2)
        assert await refusal(handle, "approve", {"command_id": 5, "actor": ALICE}) == ("InvalidCommand", says)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    assert await steps(stage, handle) == ["requested", "refused", "decided"]
    [note] = await stage.fetch("select detail from app.audit where action = 'refused'")
    reported = orjson.loads(note["detail"])
    assert (reported["verb"], reported["code"], reported["reason"]) == ("approve", "InvalidCommand", says)


async def test_an_approval_id_that_is_taken_harms_no_other_approval(stage: Stage) -> None:
    async with stage.worker():
        first = await begin(stage, approval_id="42")
        await eventually(lambda: stage.audited(first.id), bool)
        await stage.start("Approval", "another-42", request(stage, approval_id="42"))
        error = (await failing(stage.client.get_workflow_handle("another-42").result)).cause
        await first.execute_update(ApprovalWorkflow.approve, command(ALICE))
        assert (await first.result()).state == "approved"
    assert "approval '42' is another workflow's: give each request an id of its own" in str(error)
    assert await stage.audited("another-42") == []
    assert (await row(stage, first))["state"] == "approved"


@pytest.mark.parametrize("how", ["the mail server is away", "the note is refused"])
async def test_a_mail_that_cannot_be_sent_is_noted_and_stops_nothing(stage: Stage, how: str) -> None:
    if how == "the note is refused":
        await stage.refuse("mailed")
    else:
        stage.break_mail()
    async with stage.worker():
        handle = await begin(stage, mail_within_s=0.5)
        await standing(handle, lambda found: found.revision == 2)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        assert (await handle.result()).state == "approved"
    assert await steps(stage, handle) == ["requested", "unsent", "decided", "unsent"]
    notes = await stage.fetch("select detail from app.audit where action = 'unsent' order by audit_id")
    reported = [orjson.loads(note["detail"]) for note in notes]
    assert [(note["to"], note["about"]) for note in reported] == [(ALICE, "requested-1"), (REQUESTER, "decided-3")]
    assert (await row(stage, handle))["state"] == "approved"


class MailRefused(Exception):
    """What a mailer raises for a mail that will never be taken."""


class Refusing:
    """A mailer that takes nothing."""

    async def send(self, mail: Mail) -> None:
        raise MailRefused(f"550 no such user: {mail.to}")


async def test_a_mail_that_is_refused_for_good_is_not_tried_for_an_hour(stage: Stage) -> None:
    refusing = Family(WORKFLOWS, lambda application, _: ApprovalActivities(application, Refusing()).all())
    async with replace(stage, family=refusing).worker():
        handle = await begin(stage)
        [note] = await eventually(lambda: stage.fetch("select detail from app.audit where action = 'unsent'"), bool)
        await handle.execute_update(ApprovalWorkflow.cancel, command(REQUESTER))
        await handle.result()
    assert orjson.loads(note["detail"])["reason"] == f"550 no such user: {ALICE}"


async def test_another_tenant_sees_nothing_of_it(stage: Stage) -> None:
    async with stage.worker():
        handle = await begin(stage)
        await handle.execute_update(ApprovalWorkflow.approve, command(ALICE))
        await handle.result()
    async with stage.application.as_tenant(uuid4()) as connection:
        for table in ("approval", "audit", "event", "step"):
            assert await connection.fetchval(f"select count(*) from app.{table}") == 0
