"""Claiming: in the order of falling due, only what is due, and never the same row twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import anyio
import pytest

from outbox.model.message import FRONT, Message
from tests.support.sql import Clock, clock, connected
from tests.support.versions import needs_postgres


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    async with clock(database) as worker:
        yield worker


def topics(messages: list[Message]) -> list[str]:
    return [message.topic for message in messages]


async def test_empty_outbox_gives_an_empty_lease(worker: Clock) -> None:
    batch = await worker.store.claim(10, lease_s=60, worker_id=worker.worker_id)
    assert batch.messages == []
    assert batch.more is False
    outlook = await worker.store.outlook()
    assert (outlook.due, outlook.ruled, outlook.restricted, outlook.next_due_s) == (False, False, False, None)


async def test_claims_come_in_the_order_of_falling_due_then_of_enqueueing(worker: Clock) -> None:
    await worker.enqueue("late", due_in_s=5)
    await worker.enqueue("early", due_in_s=1)
    await worker.enqueue("same", due_in_s=3)
    await worker.pool.execute(
        "update outbox.message set due_at = (select max(due_at) from outbox.message where topic = 'same')"
    )
    await worker.enqueue("first", due_in_s=2)
    worker.pass_s(10)
    assert [topics(await worker.claim(1)) for _ in range(5)] == [["first"], ["late"], ["early"], ["same"], []]


async def test_claimed_message_carries_what_was_enqueued(worker: Clock) -> None:
    message_id = await worker.pool.fetchval(
        """
        select outbox.start_workflow('W', 'w-1', '{"b":  1, "a": 2}', key => 'k', headers => '{"h": "1"}', priority => 1)
        """
    )
    created_at = await worker.pool.fetchval("select created_at from outbox.message")
    worker.store.now = created_at
    worker.pass_s(2.5)
    [message] = await worker.claim()
    assert message.message_id == message_id
    assert (message.topic, message.key) == ("W", "k")
    assert message.payload == '{"b":  1, "a": 2}'
    assert message.headers == '{"h": "1"}'
    assert message.target is not None
    assert '"workflow_id": "w-1"' in message.target
    assert (message.deliveries, message.attempts, message.setbacks) == (1, 0, 0)
    assert message.age_s == 2.5


async def test_claim_leases_the_row_to_the_worker(worker: Clock) -> None:
    await worker.enqueue("a")
    [message] = await worker.claim(lease_s=45)
    row = (await worker.rows())["a"]
    assert row["lease_token"] == message.lease_token
    assert row["worker_id"] == worker.worker_id
    assert row["claimed_at"] == worker.now
    assert (row["leased_until"] - worker.now).total_seconds() == 45
    assert (row["deliveries"], row["attempts"]) == (1, 0)


async def test_each_claim_has_one_token_of_its_own(worker: Clock) -> None:
    await worker.enqueue("a", "b", "c", "d")
    first, second = await worker.claim(2), await worker.claim(2)
    assert len({message.lease_token for message in first}) == 1
    assert first[0].lease_token != second[0].lease_token


async def test_scheduled_message_is_not_claimed_a_microsecond_early(worker: Clock) -> None:
    await worker.enqueue("scheduled", due_in_s=10)
    worker.pass_s(9.999_999)
    assert await worker.claim() == []
    worker.pass_s(0.000_001)
    assert topics(await worker.claim()) == ["scheduled"]


async def test_outlook_says_whether_messages_are_due_and_when_the_next_will_be(worker: Clock) -> None:
    await worker.enqueue("now")
    await worker.enqueue("soon", due_in_s=12.5)
    await worker.enqueue("later", due_in_s=300)
    outlook = await worker.store.outlook()
    assert (outlook.due, outlook.next_due_s) == (True, 12.5)
    assert topics(await worker.claim()) == ["now"]
    outlook = await worker.store.outlook()
    assert (outlook.due, outlook.next_due_s) == (False, 12.5)


async def test_next_message_to_fall_due_may_be_another_workers_lease(worker: Clock) -> None:
    await worker.enqueue("held", "held-longer")
    await worker.claim(1, lease_s=7)
    await worker.claim(1, lease_s=8)
    assert await worker.claim() == []
    outlook = await worker.store.outlook()
    assert (outlook.due, outlook.next_due_s) == (False, 7.0)
    worker.pass_s(7)
    assert (await worker.store.outlook()).due is True


async def test_claim_begins_behind_a_place(worker: Clock) -> None:
    await worker.enqueue("a", "b", "c", "d")
    [first, second] = (await worker.store.claim(2, lease_s=60, worker_id=worker.worker_id)).messages
    await worker.store.release([first])
    behind = await worker.store.claim(9, lease_s=60, worker_id=worker.worker_id, after=(second.due_s, second.seq))
    assert topics(behind.messages) == ["c", "d"]
    assert topics(await worker.claim()) == ["a"]


async def test_place_distinguishes_messages_that_fell_due_in_the_same_microsecond(worker: Clock) -> None:
    await worker.enqueue(*"abcdef")
    await worker.pool.execute("update outbox.message set due_at = '2026-02-03 04:05:06.789013+00'")
    place, came = FRONT, []
    while messages := (await worker.store.claim(2, lease_s=60, worker_id=worker.worker_id, after=place)).messages:
        came += topics(messages)
        place = messages[-1].due_s, messages[-1].seq
    assert came == list("abcdef")


@needs_postgres(15)  # pg_stat_force_next_flush
async def test_lease_changes_no_index(worker: Clock) -> None:
    """Else each claim would cost an entry in every index, which the next claims meet until a vacuum comes."""
    await worker.enqueue(*map(str, range(20)))
    await worker.claim()
    await worker.pool.execute("select pg_stat_force_next_flush()")
    statement = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'outbox.message'::regclass"
    updates, hot = await worker.pool.fetchrow(statement)
    assert updates == hot == 20


@pytest.mark.parametrize(("limit", "more"), [(2, True), (3, True), (4, False)])
async def test_more_says_whether_the_claim_came_back_full(worker: Clock, limit: int, more: bool) -> None:
    """A full batch says more even if that was all: the next claim is empty and says no."""
    await worker.enqueue("a", "b", "c")
    batch = await worker.store.claim(limit, lease_s=60, worker_id=worker.worker_id)
    assert batch.more is more


async def test_expired_lease_is_claimed_by_another_worker(worker: Clock, database: str) -> None:
    await worker.enqueue("a")
    [stale] = await worker.claim(lease_s=60)
    async with clock(database, name="worker-2") as other:
        other.store.now = worker.now
        other.pass_s(59.999)
        assert await other.claim() == []
        other.pass_s(0.001)
        [message] = await other.claim()
        row = (await worker.rows())["a"]
        assert message.message_id == stale.message_id
        assert message.lease_token != stale.lease_token
        assert message.deliveries == 2
        assert row["worker_id"] == other.worker_id != worker.worker_id


async def test_concurrent_claimers_never_share_a_row(worker: Clock) -> None:
    await worker.pool.execute(
        "select outbox.enqueue_many((select json_agg(json_build_object('topic', n::text)) from generate_series(1, 3000) n))"
    )
    worker.pass_s(60)
    claimed: list[UUID] = []

    async def claimer(limit: int) -> None:
        while messages := await worker.claim(limit):
            claimed.extend(message.message_id for message in messages)

    async with anyio.create_task_group() as group:
        for limit in (1, 3, 17, 50, 50, 100, 7, 31):
            group.start_soon(claimer, limit)
    # A claimer may leave early when all that was due was locked by the others; no row may have been taken twice.
    claimed += [message.message_id for message in await worker.claim(3000)]
    assert len(claimed) == len(set(claimed)) == 3000


async def test_locked_rows_are_skipped_and_not_waited_for(worker: Clock, database: str) -> None:
    await worker.enqueue("locked", "free")
    async with connected(database) as other, other.transaction():
        await other.execute("select from outbox.message where topic = 'locked' for update")
        with anyio.fail_after(15):
            assert topics(await worker.claim()) == ["free"]


async def test_server_clock_is_the_clock_when_none_is_given(worker: Clock) -> None:
    await worker.pool.execute(
        "select outbox.enqueue('now'), outbox.enqueue('later', available_at => now() + interval '1 hour')"
    )
    worker.store.now = None
    outlook = await worker.store.outlook()
    assert outlook.due
    assert outlook.next_due_s is not None
    assert 3590 < outlook.next_due_s <= 3600
    batch = await worker.store.claim(10, lease_s=60, worker_id=worker.worker_id)
    assert topics(batch.messages) == ["now"]
    assert batch.claimed_s < batch.expires_s <= batch.claimed_s + 60
