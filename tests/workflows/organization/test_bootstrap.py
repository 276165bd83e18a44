"""An organisation's bootstrap from the committed row to the end, with every failure on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.parser import BytesParser
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from outbox_workflows.shared.saga_types import SagaProgress
from outbox_workflows.shared.smtp import SmtpMailer, SmtpServer
from tests.support.eventually import eventually
from tests.support.mail_server import Post, mail_server
from tests.support.running import counts, fetch
from tests.workflows.organization.conftest import CHAIN, EVENTS, INVITED, House, Organization

pytestmark = pytest.mark.timeout(90)
THEIRS_MS = 359
"""From the event to the workflow's own event, of the worker that this family replaces."""
REVOKED = ["organization.invitation.revoked"] * 2
UNDONE = {
    "announce": [],
    "configure-dns": [],
    "create-organization": ["organization.dns.removed"],
    "create-invitations": ["organization.dns.removed"],
    "send-invitation-1": [*REVOKED, "organization.dns.removed"],
    "complete": [*REVOKED, "organization.dns.removed"],
}
"""The events of the compensations, by the step that fails."""


async def test_a_committed_row_becomes_an_organization_and_its_chain_is_read_in_one_view(house: House) -> None:
    async with house.running():
        made = await house.initiate(*INVITED)
        result = await house.end(made)
        chain = await house.chain(made)
    domain = f"{made.subdomain}.example.test"
    assert result == {
        "status": "bootstrapped",
        "organization_id": str(made.organization_id),
        "domain": domain,
        "invitations": 2,
    }
    assert await house.status(made) == ("active", None)
    assert await house.invitations(made) == dict.fromkeys(INVITED, "sent")
    record = f"{made.subdomain} 300 IN CNAME app.example.test. ; {made.organization_id}\n"
    assert house.names()[made.subdomain] == record
    assert [mail["To"] for mail in house.mails()] == INVITED
    assert all(f"https://{domain}/invitations/" in mail.get_content() for mail in house.mails())

    run_id = (await house.handle(made).describe()).run_id
    assert [row["event"] for row in chain] == CHAIN
    assert {(row["workflow_id"], row["run_id"]) for row in chain} == {(made.workflow_id, run_id)}
    assert {(row["status"], row["worker"]) for row in chain} == {("completed", "worker-1")}
    for row in chain:
        assert row["enqueued_at"] <= row["claimed_at"] <= row["settled_at"]
    for before, after in pairwise(chain):
        assert before["occurred_at"] <= after["occurred_at"]
        assert before["settled_at"] <= after["settled_at"]  # in order
        assert abs(after["ms_since_first"] - before["ms_since_first"] - after["ms_since_previous"]) < 1
    assert (chain[0]["ms_since_first"], chain[0]["ms_since_previous"]) == (0, None)
    assert await counts(house.dsn) == {"message": 0, "history": len(CHAIN), "dead_letter": 0}


async def test_a_workflow_begins_sooner_after_its_event_than_theirs_did(house: House) -> None:
    """Unless the machine is so busy that a workflow which is started directly takes long, too."""
    started_ms, direct_ms = [], []
    async with house.running():
        for _ in range(4):  # at first everything is cold
            made = await house.initiate()
            await house.end(made)
            started_ms.append((await house.chain(made))[1]["ms_since_first"])
            direct_ms.append(await house.started_directly_ms())
    assert 0 < min(started_ms) < max(THEIRS_MS, 3 * min(direct_ms))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": 7}, "name must be a text, not a number"),
        ({"invitations": "ada@example.org"}, "invitations must be a list, not a text"),
        ({"subdomain": "no.name"}, "subdomain must be one DNS label in lower case"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_a_bootstrap_that_no_event_began_is_checked_as_one_would_be(
    house: House, wrong: dict[str, Any], says: str
) -> None:
    made = Organization()
    asked = made.data() | {"tenant_id": str(made.tenant_id), "stream": made.stream} | wrong
    async with house.serving():
        handle = await house.client.start_workflow(
            "OrganizationBootstrap", asked, id=made.workflow_id, task_queue=house.task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert (caught.value.cause.type, caught.value.cause.message) == ("InvalidRequest", says)
    assert await fetch(house.dsn, "select from app.event") == []


@pytest.mark.parametrize("step", EVENTS)
async def test_a_step_that_fails_leaves_nothing_but_the_reason(house: House, step: str) -> None:
    async with house.relaying():
        made = await house.initiate(*INVITED)
        await house.delivered(made.event_id)
        await house.gate(made, EVENTS[step], refuse=True)
        async with house.serving():
            error = await house.end(made)
            progress = await house.handle(made).query("progress", result_type=SagaProgress)
        chain = await house.events(made)
    assert (error.type, "refused at the gate" in error.message) == ("DatabaseRefused", True)
    before = CHAIN[: CHAIN.index(EVENTS[step])]
    assert chain == [*before, *UNDONE[step], "organization.bootstrap.failed"]
    status, reason = await house.status(made)
    assert status == "failed"
    assert "refused at the gate" in str(reason)
    assert house.names() == {}
    assert set((await house.invitations(made)).values()) <= {"revoked"}
    assert (progress.status, progress.step, progress.left, progress.percent) == ("undone", step, [], 0)
    assert "refused at the gate" in progress.error
    [reported] = await fetch(
        house.dsn, "select data ->> 'step' as step from app.event where type = 'organization.bootstrap.failed'"
    )
    assert reported["step"] == step


async def test_a_compensation_that_is_refused_is_reported_and_the_others_go_on(house: House) -> None:
    async with house.relaying():
        made = await house.initiate(*INVITED, patience={"undo_s": 2})
        await house.delivered(made.event_id)
        await house.gate(made, EVENTS["complete"], refuse=True)
        await house.gate(made, "organization.dns.removed", refuse=True)
        async with house.serving():
            error = await house.end(made)
        assert (error.type, list(error.details)) == ("NotUndone", ["configure-dns"])
        assert await house.events(made) == [*CHAIN[:-1], *REVOKED, "organization.bootstrap.failed"]
    [reported] = await fetch(
        house.dsn, "select data -> 'left' as steps from app.event where type = 'organization.bootstrap.failed'"
    )
    assert reported["steps"] == '["configure-dns"]'


@pytest.mark.parametrize("step", [step for step in EVENTS if step != "complete"])
async def test_a_cancelled_bootstrap_ends_its_step_and_undoes_it(house: House, step: str) -> None:
    async with _cancelled_at(house, step) as made:
        assert isinstance(await house.end(made), CancelledError)
        chain = await house.events(made)
    last = len(CHAIN) - CHAIN[::-1].index(EVENTS[step]) - (step == "send-invitation-1")
    undone = UNDONE["create-organization" if step == "configure-dns" else "complete" if "invitation" in step else step]
    assert chain == [*CHAIN[:last], *undone, "organization.bootstrap.cancelled"]
    assert await house.status(made) == ("cancelled", "cancelled: the customer withdrew")
    assert house.names() == {}
    assert set((await house.invitations(made)).values()) <= {"revoked"}


async def test_a_cancellation_comes_too_late_when_the_last_step_has_begun(house: House) -> None:
    async with _cancelled_at(house, "complete") as made:
        await house.end(made)
        assert await house.events(made) == CHAIN
    assert await house.status(made) == ("active", None)


@asynccontextmanager
async def _cancelled_at(house: House, step: str) -> AsyncIterator[Organization]:
    """A bootstrap that was cancelled through the outbox while it was taking this step."""
    async with house.relaying(), house.closed_gates() as gates:
        made = await house.initiate(*INVITED, patience={"heartbeat_s": 600})  # by which a step learns of it
        await house.delivered(made.event_id)
        await house.gate(made, EVENTS[step], refuse=False)
        async with house.serving():
            await gates.reached()
            cancel = "select outbox.cancel_workflow($1, 'the customer withdrew') as id"
            [row] = await fetch(house.dsn, cancel, made.workflow_id)
            await house.delivered(row["id"])
            await gates.open()
            yield made


async def test_progress_shows_the_step_and_what_is_done(house: House) -> None:
    async with house.relaying(), house.closed_gates() as gates:
        made = await house.initiate(*INVITED)
        await house.delivered(made.event_id)
        await house.gate(made, EVENTS["create-invitations"], refuse=False)
        async with house.serving():
            await gates.reached()
            before = await house.handle(made).query("progress", result_type=SagaProgress)
            await gates.open()
            await house.end(made)
            after = await house.handle(made).query("progress", result_type=SagaProgress)
    done = ["announce", "configure-dns", "create-organization"]
    assert (before.status, before.step, before.percent, before.done) == ("running", "create-invitations", 40, done)
    assert (after.status, len(after.done), after.percent) == ("done", 7, 100)


class LosesFirstAnswers(Interceptor):
    """Every activity has its effect, and its first answer is lost."""

    def intercept_activity(self, inner: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Losing(inner)


class _Losing(ActivityInboundInterceptor):
    async def execute_activity(self, call: ExecuteActivityInput) -> object:
        result = await super().execute_activity(call)
        if activity.info().attempt == 1:
            raise ConnectionError("the answer is lost")
        return result


async def test_a_step_with_a_lost_answer_has_its_effect_once(house: House) -> None:
    async with house.relaying():
        well, ill = await house.initiate(*INVITED), await house.initiate(*INVITED)
        await house.delivered(ill.event_id)
        await house.gate(ill, EVENTS["complete"], refuse=True)
        async with house.serving(None, LosesFirstAnswers()):
            await house.end(well)
            await house.end(ill)
        assert await house.events(well) == CHAIN
        assert await house.events(ill) == [*CHAIN[:-1], *UNDONE["complete"], "organization.bootstrap.failed"]
    assert len(house.mails()) == 4


async def test_a_name_that_is_anothers_fails_the_bootstrap_and_stays_theirs(house: House) -> None:
    async with house.running():
        first = await house.initiate()
        await house.end(first)
        zone = house.names()
        second = await house.initiate(subdomain=first.subdomain)
        error = await house.end(second)
        assert await house.events(second) == [*CHAIN[:2], "organization.bootstrap.failed"]
    assert isinstance(error, ApplicationError)
    assert error.type == "Refused"
    assert await house.status(second) == ("failed", f"{first.subdomain}.example.test is another organisation's")
    assert house.names() == zone
    assert await house.status(first) == ("active", None)


async def test_an_invitation_is_mailed_again_after_a_refusal_for_now_and_fails_after_one_for_good(house: House) -> None:
    post = Post()
    with mail_server(post) as server:
        async with house.running(SmtpMailer(server, "noreply@example.test")):
            post.replies = ["451 come back later"]
            well = await house.initiate(INVITED[0])
            await house.end(well)
            post.rcpt_replies = ["550 no such mailbox"]
            ill = await house.initiate(INVITED[0])
            await house.end(ill)
            reported = await house.events(ill)
    [first, second] = [BytesParser().parsebytes(envelope.content) for envelope in post.taken]
    assert first["Message-ID"] == second["Message-ID"]
    assert await house.invitations(well) == {INVITED[0]: "sent"}
    assert await house.invitations(ill) == {INVITED[0]: "revoked"}
    assert await house.status(ill) == ("failed", f"mail to {INVITED[0]}: the server said 550 no such mailbox")
    assert reported[-3:] == [REVOKED[0], "organization.dns.removed", "organization.bootstrap.failed"]
    assert house.names().keys() == {well.subdomain}


async def test_a_cancellation_does_not_wait_for_a_mail_server_that_is_away(house: House) -> None:
    absent = SmtpServer("127.0.0.1", 1, security="none")
    async with house.running(SmtpMailer(absent, "noreply@example.test")):
        made = await house.initiate(*INVITED)
        await house.delivered(made.event_id)

        async def tries() -> int:
            described = await house.handle(made).describe()
            return sum(each.attempt for each in described.raw_description.pending_activities)

        await eventually(tries, lambda attempt: attempt > 2)
        await fetch(house.dsn, "select outbox.cancel_workflow($1)", made.workflow_id)
        assert isinstance(await house.end(made), CancelledError)
    assert await house.status(made) == ("cancelled", "cancelled")
    assert await house.invitations(made) == dict.fromkeys(INVITED, "revoked")


async def test_an_organization_is_bootstrapped_once_after_any_number_of_requests(house: House) -> None:
    async with house.running():
        made = await house.initiate(*INVITED)
        await house.end(made)
        again = await house.initiate(
            *INVITED,
            organization_id=made.organization_id,
            tenant_id=made.tenant_id,
            subdomain=made.subdomain,
            event_id=uuid4(),
        )
        await house.delivered(again.event_id)
        assert await house.events(again) == [*CHAIN, CHAIN[0]]
    [outcome] = await fetch(house.dsn, "select outcome from outbox.history where message_id = $1", again.event_id)
    assert outcome["outcome"] == "duplicate"
    assert len(house.mails()) == 2
