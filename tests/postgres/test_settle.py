"""Settling: what each statement writes, what it counts, and that a stale lease settles nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import anyio
import asyncpg
import pytest

from outbox.model.errors import DatabaseRefused
from outbox.model.message import LeaseId, Message
from outbox.model.sink import Action, Delivered
from outbox.store.completed import action_of
from outbox.store.messages import Burial, Retry
from tests.support.sql import Clock, clock, connected

Settle = Callable[[Clock, list[Message]], Awaitable[set[LeaseId]]]


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    async with clock(database) as worker:
        yield worker


async def complete(worker: Clock, messages: list[Message]) -> set[LeaseId]:
    return await worker.store.complete([(message, Delivered("w", "r")) for message in messages])


async def retry(
    worker: Clock, messages: list[Message], *, counted: bool = True, detail: str = "detail"
) -> set[LeaseId]:
    return await worker.store.retry([Retry(message, 5.0, counted, "Kind", detail) for message in messages])


async def bury(worker: Clock, messages: list[Message], *, counted: bool = True, detail: str = "detail") -> set[LeaseId]:
    return await worker.store.bury([Burial(message, "rejected", counted, "Kind", detail) for message in messages])


async def release(worker: Clock, messages: list[Message]) -> set[LeaseId]:
    return await worker.store.release(messages)


SETTLES = [complete, retry, bury, release]
every_settle = pytest.mark.parametrize("settle", SETTLES, ids=lambda settle: settle.__name__)


async def everything(worker: Clock) -> list[list[asyncpg.Record]]:
    return [await worker.pool.fetch(f"select * from outbox.{table}") for table in ("message", "history", "dead_letter")]


# Fencing


@every_settle
async def test_stale_lease_settles_nothing(worker: Clock, database: str, settle: Settle) -> None:
    await worker.enqueue("a")
    stale = await worker.claim(lease_s=60)
    worker.pass_s(60)
    async with clock(database, name="worker-2") as other:
        other.store.now = worker.now
        [held] = await other.claim()
        before = await everything(worker)
        assert await settle(worker, stale) == {stale[0].lease}
        assert await everything(worker) == before
        assert await settle(other, [held]) == set()


@every_settle
async def test_expired_lease_that_was_not_taken_still_settles(worker: Clock, settle: Settle) -> None:
    """The token is the fence, not the clock: if no other worker holds the message, this one may settle it."""
    await worker.enqueue("a")
    messages = await worker.claim(lease_s=60)
    worker.pass_s(3600)
    assert await settle(worker, messages) == set()


@every_settle
async def test_settling_twice_loses_the_second_time(worker: Clock, settle: Settle) -> None:
    await worker.enqueue("a")
    messages = await worker.claim()
    assert await settle(worker, messages) == set()
    before = await everything(worker)
    assert await settle(worker, messages) == {messages[0].lease}
    assert await everything(worker) == before


@every_settle
async def test_batch_settles_what_is_held_and_names_what_is_not(worker: Clock, settle: Settle) -> None:
    await worker.enqueue(*[f"m{n}" for n in range(50)])
    messages = await worker.claim()
    lost = messages[::3]
    await worker.pool.execute(
        "update outbox.message set lease_token = lease_token + 1000 where message_id = any ($1)",
        [m.message_id for m in lost[::2]],
    )
    await worker.pool.execute(
        "delete from outbox.message where message_id = any ($1)", [m.message_id for m in lost[1::2]]
    )
    assert await settle(worker, messages) == {message.lease for message in lost}
    left = "select count(*) from outbox.message where lease_token = $1"
    assert await worker.pool.fetchval(left, messages[0].lease_token) == 0


@every_settle
async def test_empty_batch_settles_nothing(worker: Clock, settle: Settle) -> None:
    assert await settle(worker, []) == set()


@every_settle
async def test_stale_lease_is_distinguished_from_the_held_one_in_the_same_batch(worker: Clock, settle: Settle) -> None:
    await worker.enqueue("a")
    stale = await worker.claim(lease_s=60)
    worker.pass_s(60)
    held = await worker.claim()
    assert await settle(worker, [*stale, *held]) == {stale[0].lease}


@every_settle
async def test_settle_waits_for_a_lock_on_the_row_and_then_judges_again(
    worker: Clock, database: str, settle: Settle
) -> None:
    """A claim by another worker that commits while we wait for its lock has taken the lease."""
    await worker.enqueue("a")
    messages = await worker.claim()
    lost: list[set[LeaseId]] = []

    async def late() -> None:
        lost.append(await settle(worker, messages))

    async with connected(database) as other, anyio.create_task_group() as group:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("update outbox.message set lease_token = lease_token + 1")
        group.start_soon(late)
        with anyio.fail_after(15):
            while not await other.fetchval(
                "select count(*) > 0 from pg_locks where not granted and pid <> pg_backend_pid()"
            ):
                await anyio.lowlevel.checkpoint()
        await transaction.commit()
    assert lost == [{messages[0].lease}]


# Complete


async def test_completed_message_moves_to_the_history(worker: Clock) -> None:
    await worker.pool.execute(
        "select outbox.start_workflow('W', 'w-1', '{}', key => 'k', dedup_key => 'd', namespace => 'n', task_queue => 'q')"
    )
    created = (await worker.rows())["W"]
    worker.store.now = created["created_at"] + timedelta(seconds=1)
    [message] = await worker.claim()
    claimed_at = worker.now
    worker.pass_s(2)
    await worker.store.complete([(message, Delivered("w-1", "run-1"))])
    assert await worker.rows() == {}
    [row] = await worker.pool.fetch("select * from outbox.history")
    assert dict(row) == {
        "message_id": message.message_id,
        "seq": message.seq,
        "created_at": created["created_at"],
        "available_at": created["available_at"],
        "claimed_at": claimed_at,
        "settled_at": worker.now,
        "worker_id": worker.worker_id,
        "deliveries": 1,
        "attempts": 0,
        "outcome": "delivered",
        "topic": "W",
        "key": "k",
        "dedup_key": "d",
        "operation": "start_workflow",
        "workflow": "W",
        "workflow_id": "w-1",
        "run_id": "run-1",
        "namespace": "n",
        "task_queue": "q",
    }


async def test_each_completed_message_keeps_its_own_outcome(worker: Clock) -> None:
    await worker.enqueue("a", "b", "c")
    a, b, c = await worker.claim()
    await worker.store.complete(
        [(c, Delivered("wc", "rc", duplicate=True)), (a, Delivered()), (b, Delivered("wb", None))]
    )
    rows = await worker.pool.fetch("select topic, workflow_id, run_id, outcome from outbox.history order by topic")
    assert [tuple(row) for row in rows] == [
        ("a", None, None, "delivered"),
        ("b", "wb", None, "delivered"),
        ("c", "wc", "rc", "duplicate"),
    ]


TARGETS = (
    '{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "task_queue": "q", "namespace": "n"}',
    '{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "task_queue": "q", "namespace": null}',
    '{"operation": "signal_workflow", "signal": "s", "workflow_id": "w"}',
    r'{"operation": "start_workflow", "workflow": "A\u00e9\"\\b,\u001f{}", "workflow_id": "w", "task_queue": "NULL"}',
    '{"task_queue": "first", "operation": "start_workflow", "workflow": "W", "workflow_id": "w", "task_queue": "last"}',
    None,
)


async def test_history_keeps_of_each_target_what_it_asks_for(worker: Clock) -> None:
    """PostgreSQL reads the same in them: here the target of each line of the history is its topic."""
    for target in [*TARGETS, *TARGETS]:
        await worker.pool.execute("select outbox.enqueue(coalesce($1, 'none'), target => $1::text::json)", target)
    worker.store.now = await worker.pool.fetchval("select clock_timestamp()")
    messages = await worker.claim()
    assert await worker.store.complete([(message, Delivered("w", "r")) for message in messages]) == set()
    fields = ("operation", "workflow", "namespace", "task_queue")
    rows = await worker.pool.fetch(
        f"""select {", ".join(fields)}, {", ".join(f"nullif(topic, 'none')::json ->> '{field}' as {field}_" for field in fields)}
            from outbox.history"""  # noqa: S608 - names of columns
    )
    assert len(rows) == 2 * len(TARGETS)
    for row in rows:
        assert [row[field] for field in fields] == [row[f"{field}_"] for field in fields]


async def test_an_empty_task_queue_or_namespace_is_none_in_the_history(worker: Clock) -> None:
    """Only a row that is written by hand has one. The audit compares the history's queue with the run's."""
    await worker.enqueue("a")
    target = '{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "task_queue": "", "namespace": ""}'
    await worker.pool.execute("update outbox.message set target = $1::text::json", target)
    [message] = await worker.claim()
    await worker.store.complete([(message, Delivered("w", "r"))])
    row = await worker.pool.fetchrow("select operation, workflow, namespace, task_queue from outbox.history")
    assert row is not None
    assert tuple(row) == ("start_workflow", "W", None, None)


async def test_history_takes_from_the_sink_what_it_has_read_already(worker: Clock) -> None:
    await worker.enqueue("a", "b")
    a, b = await worker.claim()
    await worker.store.complete([(a, Delivered(action=Action("o", "w", None, "q"))), (b, Delivered())])
    rows = await worker.pool.fetch(
        "select operation, workflow, namespace, task_queue from outbox.history order by topic"
    )
    assert [tuple(row) for row in rows] == [("o", "w", None, "q"), (None, None, None, None)]


@pytest.mark.parametrize(
    "target", ["[1]", '"text"', '{"operation": {"a": 1}}', '{"operation": "\\ud800"}', "[" * 2000 + "]" * 2000]
)
def test_target_that_cannot_be_read_leaves_nothing_in_the_history(target: str) -> None:
    """A sink of somebody's own may have delivered it."""
    assert action_of(target) == Action()


async def test_history_can_be_off(database: str) -> None:
    async with clock(database, history=False) as worker:
        await worker.enqueue("a")
        assert await complete(worker, await worker.claim()) == set()
        assert [len(rows) for rows in await everything(worker)] == [0, 0, 0]


async def test_completion_before_any_partition_exists_is_kept(worker: Clock) -> None:
    await worker.enqueue("a")
    messages = await worker.claim()
    worker.pass_s(400 * 86_400)
    assert await complete(worker, messages) == set()
    assert await worker.pool.fetchval("select tableoid::regclass::text from outbox.history") == "outbox.history_default"


# Retry


async def test_retried_message_is_due_after_its_delay_with_the_error_on_record(worker: Clock) -> None:
    await worker.enqueue("a")
    [message] = await worker.claim()
    worker.pass_s(1)
    await worker.store.retry([Retry(message, 2.5, counted=True, kind="NamespaceNotFound", detail='no "x"')])
    row = (await worker.rows())["a"]
    assert row["due_at"] == worker.now + timedelta(seconds=2.5)
    assert row["lease_token"] is row["worker_id"] is None
    [error] = json.loads(row["errors"])
    assert (error["kind"], error["detail"], error["counted"]) == ("NamespaceNotFound", 'no "x"', True)
    assert await worker.pool.fetchval("select (errors -> 0 ->> 'at')::timestamptz from outbox.message") == worker.now
    worker.pass_s(2.5)
    [again] = await worker.claim()
    assert (again.deliveries, again.attempts, again.setbacks) == (1, 1, 1)


async def test_retry_counts_an_attempt_only_where_the_message_failed_and_clears_deliveries(worker: Clock) -> None:
    await worker.enqueue("a", "b")
    await worker.pool.execute("update outbox.message set deliveries = 1")
    a, b = await worker.claim()
    assert (a.deliveries, b.deliveries) == (2, 2)
    await worker.store.retry([Retry(a, 0, True, "K", ""), Retry(b, 0, False, "K", "")])
    rows = await worker.rows()
    assert [(rows[name]["attempts"], rows[name]["deliveries"]) for name in "ab"] == [(1, 0), (0, 0)]
    assert [len(json.loads(rows[name]["errors"])) for name in "ab"] == [1, 1]


async def test_error_list_keeps_the_first_and_the_latest_nineteen(worker: Clock) -> None:
    await worker.enqueue("a")
    for n in range(30):
        await retry(worker, await worker.claim(), detail=str(n), counted=n % 2 == 0)
        worker.pass_s(5)
    row = (await worker.rows())["a"]
    assert [error["detail"] for error in json.loads(row["errors"])] == ["0", *[str(n) for n in range(11, 30)]]
    assert row["attempts"] == 15
    await bury(worker, await worker.claim(), detail="last")
    errors = json.loads(await worker.pool.fetchval("select errors from outbox.dead_letter"))
    assert [error["detail"] for error in errors] == ["0", *[str(n) for n in range(12, 30)], "last"]


# Bury


async def test_buried_message_is_a_dead_letter_with_everything_it_had(worker: Clock) -> None:
    await worker.pool.execute(
        """
        select outbox.enqueue('a', '{"b":  1}', 'k', '{"h": 1}', '{"operation": "cancel_workflow", "workflow_id": "w"}',
                              dedup_key => 'd', priority => 3)
        """
    )
    worker.pass_s(60)
    [message] = await worker.claim()
    before = (await worker.rows())["a"]
    worker.pass_s(1)
    assert await worker.store.bury([Burial(message, "rejected", counted=True, kind="TooLong", detail="d")]) == set()
    assert await worker.rows() == {}
    [letter] = await worker.pool.fetch("select * from outbox.dead_letter")
    kept = {
        name: value
        for name, value in before.items()
        if name in letter and name not in ("errors", "attempts")  # what only matters to claims is left behind
    }
    assert kept.keys() >= {
        "payload",
        "key",
        "dedup_key",
        "dedup_window",
        "tenant",
        "priority",
        "headers",
        "target",
        "seq",
    }
    assert {name: letter[name] for name in kept} == kept
    assert letter["reason"] == "rejected"
    assert letter["died_at"] == worker.now
    assert letter["attempts"] == 1
    assert [error["kind"] for error in json.loads(letter["errors"])] == ["TooLong"]


@pytest.mark.parametrize("reason", ["rejected", "exhausted", "quarantined"])
async def test_burial_has_its_reason_and_counts_as_reported(worker: Clock, reason: str) -> None:
    await worker.enqueue("a")
    [message] = await worker.claim()
    await worker.store.bury([Burial(message, reason, counted=False, kind="K", detail="")])  # type: ignore[arg-type]
    row = await worker.pool.fetchrow("select reason, attempts, deliveries from outbox.dead_letter")
    assert tuple(row) == (reason, 0, 1)


async def test_unknown_reason_is_refused_and_nothing_is_lost(worker: Clock) -> None:
    await worker.enqueue("a")
    [message] = await worker.claim()
    with pytest.raises(DatabaseRefused) as raised:
        await worker.store.bury([Burial(message, "because", counted=False, kind="K", detail="")])  # type: ignore[arg-type]
    assert raised.value.sqlstate == "23514"
    assert "a" in await worker.rows()


async def test_later_burial_of_the_same_id_replaces_the_earlier(worker: Clock) -> None:
    message_id = UUID(int=7)
    for topic in ("first", "second"):
        await worker.pool.execute("select outbox.enqueue($1, message_id => $2)", topic, message_id)
        worker.pass_s(60)
        assert await bury(worker, await worker.claim(), detail=topic) == set()
    [letter] = await worker.pool.fetch("select * from outbox.dead_letter")
    assert (letter["topic"], letter["died_at"]) == ("second", worker.now)
    assert [error["detail"] for error in json.loads(letter["errors"])] == ["second"]


# Release


async def test_released_messages_keep_their_old_order_as_if_never_claimed(worker: Clock) -> None:
    await worker.enqueue("a", "b", "c", "d")
    before = await worker.rows()
    messages = await worker.claim(3)
    await worker.pool.execute("update outbox.message set available_at = available_at")
    worker.pass_s(30)
    assert await worker.store.release([messages[2], messages[0], messages[1]]) == set()
    after = await worker.rows()
    columns = ("due_at", "lease_token", "worker_id", "deliveries", "attempts", "errors")
    assert [[after[name][column] for column in columns] for name in "abcd"] == [
        [before[name][column] for column in columns] for name in "abcd"
    ]
    assert [message.topic for message in await worker.claim()] == ["a", "b", "c", "d"]


async def test_release_gives_priority_its_head_start_back(worker: Clock) -> None:
    await worker.pool.execute("select outbox.enqueue('slow')")
    await worker.pool.execute("select outbox.enqueue('fast', priority => 5)")
    worker.pass_s(60)
    before = {name: row["due_at"] for name, row in (await worker.rows()).items()}
    await release(worker, await worker.claim())
    assert {name: row["due_at"] for name, row in (await worker.rows()).items()} == before


async def test_released_retry_is_due_at_once_and_keeps_its_record(worker: Clock) -> None:
    await worker.enqueue("a")
    await retry(worker, await worker.claim())
    worker.pass_s(5)
    [message] = await worker.claim()
    await release(worker, [message])
    row = (await worker.rows())["a"]
    assert (row["attempts"], row["deliveries"], len(json.loads(row["errors"]))) == (1, 0, 1)
    assert row["due_at"] <= worker.now


async def test_release_takes_back_only_its_own_claim(worker: Clock) -> None:
    """Earlier claims without outcome stay counted, or a killer would be acquitted by a shutdown in between."""
    await worker.enqueue("a")
    await worker.claim(lease_s=1)
    worker.pass_s(1)
    await release(worker, await worker.claim())
    assert (await worker.rows())["a"]["deliveries"] == 1


async def test_release_wakes_the_listeners_once_it_commits(worker: Clock, database: str) -> None:
    await worker.enqueue("a", "b")
    messages = await worker.claim()
    rung = anyio.Event()
    async with connected(database) as listener:
        await listener.add_listener("outbox_wakeup", lambda *_: rung.set())
        await release(worker, messages)
        with anyio.fail_after(15):
            await rung.wait()
