"""`outbox.message_life` and `outbox status`: every message's life in the words that people use."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from outbox.model.sink import Delivered
from outbox.store.messages import Burial, Retry
from tests.support.sql import Clock, clock


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    """Its clock is the server's: the view asks now()."""
    async with clock(database, name="alice") as worker:
        worker.store.now = None
        yield worker


async def life(worker: Clock) -> dict[str, Any]:
    [row] = await worker.pool.fetch("select * from outbox.message_life")
    return dict(row)


async def start(worker: Clock, **arguments: str) -> dict[str, Any]:
    """Enqueue one workflow start; return the columns that stay the same through its life."""
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    message_id = await worker.pool.fetchval(f"select outbox.start_workflow('W', 'w-1', key => 'k'{more})")
    created_at = await worker.pool.fetchval("select created_at from outbox.message")
    return {
        "message_id": message_id,
        "topic": "W",
        "key": "k",
        "operation": "start_workflow",
        "workflow": "W",
        "workflow_id": "w-1",
        "enqueued_at": created_at,
        "available_at": created_at,
    }


NOTHING_YET = dict.fromkeys(
    ("run_id", "worker", "claimed_at", "settled_at", "next_try_at", "outcome", "last_error")
)  # fmt: skip


async def test_pending(worker: Clock) -> None:
    same = await start(worker)
    assert await life(worker) == same | NOTHING_YET | {"status": "pending", "deliveries": 0, "attempts": 0}


async def test_scheduled(worker: Clock) -> None:
    same = await start(worker, available_at="now() + interval '1 hour'")
    due_at = await worker.pool.fetchval("select due_at from outbox.message")
    expected = {"status": "scheduled", "deliveries": 0, "attempts": 0, "available_at": due_at, "next_try_at": due_at}
    assert await life(worker) == same | NOTHING_YET | expected


async def test_processing(worker: Clock) -> None:
    same = await start(worker)
    await worker.claim()
    claimed_at = await worker.pool.fetchval("select claimed_at from outbox.message")
    expected = {"status": "processing", "deliveries": 1, "attempts": 0, "worker": "alice", "claimed_at": claimed_at}
    assert await life(worker) == same | NOTHING_YET | expected
    assert claimed_at is not None


async def test_abandoned_is_pending_again_and_still_names_its_worker(worker: Clock) -> None:
    await start(worker)
    await worker.claim()
    await worker.pool.execute(
        "update outbox.message set due_at = now() - interval '1 minute', leased_until = now() - interval '1 second'"
    )
    row = await life(worker)
    assert (row["status"], row["worker"], row["deliveries"], row["next_try_at"]) == ("pending", "alice", 1, None)


async def test_retrying_is_scheduled_with_its_error_and_its_next_try(worker: Clock) -> None:
    same = await start(worker)
    [message] = await worker.claim()
    for detail in ("first", "second"):
        await worker.store.retry([Retry(message, 0, counted=True, kind="K", detail=detail)])
        [message] = await worker.claim()
    await worker.store.retry([Retry(message, 300, counted=True, kind="K", detail="third")])
    row = await worker.pool.fetchrow("select due_at, claimed_at from outbox.message")
    expected = {
        "status": "scheduled",
        "deliveries": 0,
        "attempts": 3,
        "claimed_at": row["claimed_at"],
        "next_try_at": row["due_at"],
        "last_error": "third",
    }
    assert await life(worker) == same | NOTHING_YET | expected


@pytest.mark.parametrize(("duplicate", "outcome"), [(False, "delivered"), (True, "duplicate")])
async def test_completed(worker: Clock, duplicate: bool, outcome: str) -> None:
    same = await start(worker)
    [message] = await worker.claim()
    await worker.store.complete([(message, Delivered("w-1", "run-1", duplicate=duplicate))])
    row = await worker.pool.fetchrow("select claimed_at, settled_at from outbox.history")
    expected = {
        "status": "completed",
        "deliveries": 1,
        "attempts": 0,
        "worker": "alice",
        "run_id": "run-1",
        "claimed_at": row["claimed_at"],
        "settled_at": row["settled_at"],
        "outcome": outcome,
    }
    assert await life(worker) == same | NOTHING_YET | expected
    assert row["settled_at"] >= row["claimed_at"] >= same["enqueued_at"]


async def test_failed(worker: Clock) -> None:
    same = await start(worker)
    [message] = await worker.claim()
    await worker.store.bury([Burial(message, "rejected", counted=True, kind="K", detail="no such queue")])
    row = await worker.pool.fetchrow("select claimed_at, died_at from outbox.dead_letter")
    expected = {
        "status": "failed",
        "deliveries": 1,
        "attempts": 1,
        "worker": "alice",
        "claimed_at": row["claimed_at"],
        "settled_at": row["died_at"],
        "outcome": "rejected",
        "last_error": "no such queue",
    }
    assert await life(worker) == same | NOTHING_YET | expected


async def test_a_forgotten_worker_hides_no_message(worker: Clock) -> None:
    for settle in (True, False):
        await start(worker)
        [message] = await worker.claim()
        if settle:
            await worker.store.complete([(message, Delivered())])
    await worker.pool.execute("delete from outbox.worker")
    rows = await worker.pool.fetch("select status, worker from outbox.message_life order by status")
    assert [tuple(row) for row in rows] == [("completed", None), ("processing", None)]


async def test_message_without_target_has_no_workflow(worker: Clock) -> None:
    await worker.pool.execute("select outbox.enqueue('t')")
    row = await life(worker)
    assert row["operation"] is row["workflow"] is row["workflow_id"] is None


# Workers, switches, status


async def test_worker_register_and_heartbeat(worker: Clock) -> None:
    pool = worker.pool
    worker_id = await worker.workers.register("bob", "1.2.3", {"pid": 7})
    row = await pool.fetchrow("select * from outbox.worker where worker_id = $1", worker_id)
    assert (row["name"], row["version"], row["state"], json.loads(row["detail"])) == (
        "bob",
        "1.2.3",
        "starting",
        {"pid": 7},
    )
    assert row["stopped_at"] is None
    await pool.execute("update outbox.worker set seen_at = now() - interval '1 day'")
    await worker.workers.heartbeat(worker_id, "running", {"in_flight": 3})
    row = await pool.fetchrow("select *, now() - seen_at as age from outbox.worker where worker_id = $1", worker_id)
    assert (row["state"], json.loads(row["detail"])) == ("running", {"pid": 7, "in_flight": 3})
    assert row["age"] < timedelta(minutes=1)
    await worker.workers.heartbeat(worker_id, "stopped", {})
    assert await pool.fetchval("select stopped_at is not null from outbox.worker where worker_id = $1", worker_id)
    assert await pool.fetchval("select seen_at < now() - interval '1 hour' from outbox.worker where name = 'alice'")


async def test_switches_are_set_changed_and_removed(worker: Clock) -> None:
    assert await worker.rules.control() == ({}, [])
    await worker.rules.set_switch("mode", "poll")
    await worker.rules.set_switch("rate.limit", 5)
    await worker.rules.set_switch("mode", "listen")
    assert await worker.rules.control() == ({"mode": "listen", "rate.limit": 5}, [])
    await worker.rules.set_switch("mode", None)
    await worker.rules.set_switch("mode", None)
    assert await worker.rules.control() == ({"rate.limit": 5}, [])


async def test_status_of_an_empty_outbox(worker: Clock) -> None:
    report = await worker.overview.status()
    assert report["messages"] == {
        "pending": 0,
        "processing": 0,
        "scheduled": 0,
        "waiting": 0,
        "retrying": 0,
        "oldest_pending_s": None,
    }
    assert report["dead_letters"] == {}
    assert report["completed"] == {
        "last_minute": 0,
        "last_hour": 0,
        "duplicates_last_hour": 0,
        "discarded_last_hour": 0,
        "latency_p50_s": None,
        "latency_p99_s": None,
    }
    assert report["errors"] == []
    assert [entry["name"] for entry in report["workers"]] == ["alice"]


async def test_status_counts_every_kind_of_message(worker: Clock) -> None:
    pool, store = worker.pool, worker.store
    await pool.execute("select outbox.enqueue(n::text) from generate_series(1, 10) n")
    done, dead, failed, *_held = await worker.claim(5)
    await store.complete([(done, Delivered())])
    await store.bury([Burial(dead, "rejected", counted=True, kind="TooLong", detail="dead")])
    await store.retry([Retry(failed, 300, counted=True, kind="Busy", detail="later")])
    await pool.execute("select outbox.enqueue('s', available_at => now() + interval '1 day')")
    report = await worker.overview.status()
    assert {name: report["messages"][name] for name in ("pending", "processing", "scheduled", "retrying")} == {
        "pending": 5,
        "processing": 2,
        "scheduled": 2,
        "retrying": 1,
    }
    assert report["messages"]["oldest_pending_s"] > 0
    assert report["dead_letters"] == {"rejected": 1}
    assert (report["completed"]["last_minute"], report["completed"]["last_hour"]) == (1, 1)
    assert report["completed"]["latency_p50_s"] > 0
    assert sorted((error["kind"], error["messages"], error["example"]) for error in report["errors"]) == [
        ("Busy", 1, "later"),
        ("TooLong", 1, "dead"),
    ]


async def test_status_leaves_out_workers_that_are_gone(worker: Clock) -> None:
    await worker.workers.heartbeat(worker.worker_id, "stopped", {})
    await worker.workers.register("silent", "1", {})
    await worker.pool.execute("update outbox.worker set seen_at = now() - interval '2 hours' where name = 'silent'")
    await worker.workers.register("here", "1", {})
    assert [entry["name"] for entry in (await worker.overview.status())["workers"]] == ["here"]
