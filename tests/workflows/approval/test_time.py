"""Days of waiting, with the production defaults; and approvals so long that they continue as new."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from outbox_temporal.servers.temporal import TemporalServer
from outbox_workflows.approval.definitions import ApprovalWorkflow
from tests.support import time_skipping
from tests.support.eventually import eventually
from tests.support.stage import Stage
from tests.support.stage import stage as staged
from tests.workflows.approval.scenarios import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    FAMILY,
    SERVER_CONFIG,
    begin,
    command,
    continue_as_new,
    send_signal,
    standing,
)

pytestmark = pytest.mark.timeout(180)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(scope="module")
def hasty_server() -> Iterator[TemporalServer]:
    """A server that suggests early to continue as new."""
    config = time_skipping.SERVER_CONFIG | SERVER_CONFIG
    with TemporalServer.start(ui=False, in_memory=True, dynamic_config=config) as server:
        yield server


@pytest.fixture
async def hasty(
    application_database: str, hasty_server: TemporalServer, tmp_path: Path, anyio_backend: object
) -> AsyncIterator[Stage]:
    client = await Client.connect(hasty_server.address)
    async with staged(FAMILY, application_database, client, tmp_path / "mail") as played:
        yield played


async def trail(stage: Stage) -> list[tuple[str, str]]:
    """What happened, and who had to decide then."""
    rows = await stage.fetch("select type, data ->> 'approver' as approver from app.event order by seq")
    return [(row["type"].removeprefix("approval."), row["approver"]) for row in rows]


async def refused(handle: WorkflowHandle[Any, Any], who: str) -> str | None:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update(ApprovalWorkflow.approve, command(who))
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause.type


async def test_after_days_without_an_answer_the_next_is_asked_and_may_decide(stage: Stage) -> None:
    time = await time_skipping.time_of(stage.client)
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB, CAROL])
        asked = await standing(handle, lambda found: found.revision == 1)
        assert asked.deadline is not None
        await time.pass_by(handle, 3 * DAY + HOUR)
        second = await standing(handle, lambda found: found.level == 2)
        assert second.deadline is not None
        assert timedelta() <= second.deadline - asked.deadline - 3 * DAY < HOUR
        assert await refused(handle, ALICE) == "NotYourTurn"
        await time.pass_by(handle, DAY + HOUR)
        await handle.execute_update(ApprovalWorkflow.delegate, command(BOB, to=DAVE))
        await time.pass_by(handle, 2 * DAY)
        await standing(handle, lambda found: found.level == 3)
        assert await refused(handle, DAVE) == "NotYourTurn"
        ended = await handle.execute_update(ApprovalWorkflow.approve, command(CAROL))
        await handle.result()
    assert (ended.state, ended.level, ended.decided_by) == ("approved", 3, CAROL)
    assert ended.decided_at is not None
    assert ended.decided_at - asked.deadline > 3 * DAY
    assert await trail(stage) == [
        ("requested", ALICE),
        ("reminded", ALICE),
        ("reminded", ALICE),
        ("escalated", BOB),
        ("reminded", BOB),
        ("delegated", BOB),
        ("reminded", BOB),
        ("escalated", CAROL),
        ("decided", CAROL),
    ]


async def test_without_any_answer_the_chain_expires_after_nine_days(stage: Stage) -> None:
    time = await time_skipping.time_of(stage.client)
    async with stage.worker():
        handle = await begin(stage, approvers=[ALICE, BOB, CAROL], remind_every_s=0)
        await standing(handle, lambda found: found.revision == 1)
        await time.pass_by(handle, 9 * DAY - HOUR)
        assert (await handle.query(ApprovalWorkflow.standing)).state == "pending"
        await time.pass_by(handle, 2 * HOUR)
        assert (await handle.result()).state == "expired"
    assert [who for _, who in await trail(stage)] == [ALICE, BOB, CAROL, CAROL]


async def test_the_timers_of_a_request_with_defaults_are_those_of_production(stage: Stage) -> None:
    async with stage.worker():
        simple, chain = await begin(stage), await begin(stage, approvers=[ALICE, BOB])
        for handle, answer_within, reminder in ((simple, 14 * DAY, 3 * DAY), (chain, 3 * DAY, DAY)):
            [timer] = await eventually(partial(timers, handle), bool)
            deadline = (await handle.query(ApprovalWorkflow.standing)).deadline
            begun = (await handle.describe()).start_time
            assert deadline is not None
            assert timedelta() <= deadline - begun - answer_within < HOUR
            assert timedelta() <= reminder - timer < HOUR


async def timers(handle: WorkflowHandle[Any, Any]) -> list[timedelta]:
    """The durations of the timers that a workflow has started."""
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
    ]


async def test_a_command_that_comes_again_after_continuing_as_new_does_nothing_more(hasty: Stage) -> None:
    delegation, refusal = command(ALICE, to=DAVE), command(CAROL)
    async with hasty.worker():
        handle = await begin(hasty, approvers=[ALICE, BOB, CAROL])
        await send_signal(hasty, handle, "delegate", delegation)
        await send_signal(hasty, handle, "approve", refusal)
        before = await standing(handle, lambda found: found.revision == 3)
        await continue_as_new(hasty, handle)
        same = await handle.query(ApprovalWorkflow.standing)
        assert (same.deadline, same.delegate) == (before.deadline, DAVE)
        await send_signal(hasty, handle, "delegate", delegation)
        await send_signal(hasty, handle, "approve", refusal)
        answer = await handle.execute_update(ApprovalWorkflow.delegate, delegation)
        assert answer.revision == same.revision
        decision = command(DAVE)
        ended = await handle.execute_update(ApprovalWorkflow.approve, decision)
        assert await handle.result() == ended
    reported = [action for action, _ in await trail(hasty)]
    assert (reported.count("delegated"), reported.count("decided"), ended.decided_by) == (1, 1, DAVE)
    assert len(reported) == ended.revision


async def test_deadlines_stay_where_they_are_when_it_continues_as_new_on_the_way(hasty: Stage) -> None:
    time = await time_skipping.time_of(hasty.client)
    async with hasty.worker():
        handle = await begin(hasty, approvers=[ALICE, BOB])
        asked = await standing(handle, lambda found: found.revision == 1)
        first = (await handle.describe()).run_id
        await time.pass_by(handle, DAY + HOUR)
        await continue_as_new(hasty, handle)
        assert (await handle.query(ApprovalWorkflow.standing)).deadline == asked.deadline
        await time.pass_by(handle, 2 * DAY - 2 * HOUR)
        still = await handle.query(ApprovalWorkflow.standing)
        assert (still.level, still.reminders) == (1, 2)
        await time.pass_by(handle, 2 * HOUR)
        await standing(handle, lambda found: found.level == 2)
        await handle.execute_update(ApprovalWorkflow.approve, command(BOB))
        await handle.result()
        assert (await handle.describe()).run_id != first
    reported = [action for action, _ in await trail(hasty) if action != "refused"]
    assert reported == ["requested", "reminded", "reminded", "escalated", "decided"]
