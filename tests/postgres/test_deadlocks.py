"""Producers with the same keys in different orders in their batches wait for one another; none of them fails."""

from __future__ import annotations

import asyncio

import asyncpg
import orjson
import pytest

from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.running import fetch
from tests.support.sql import connected

NAMES = [f"k-{number:03}" for number in range(200)]
ROUNDS = 10


def batch(field: str, names: list[str]) -> str:
    extra = {"commit_order": True} if field == "key" else {}
    return orjson.dumps([{"topic": "t", field: name, **extra} for name in names]).decode()


def ids(names: list[str]) -> list[str]:
    return [f"0190d5c1-0000-7000-8000-000000000{name[2:]}" for name in names]


@pytest.mark.parametrize("field", ["dedup_key", "message_id", "key"])
async def test_batches_with_the_same_keys_in_opposite_orders_do_not_deadlock(database: str, field: str) -> None:
    async def produce(names: list[str]) -> None:
        async with connected(database) as connection:
            given = ids(names) if field == "message_id" else names
            for _ in range(ROUNDS):
                await connection.fetch("select outbox.enqueue_many($1)", batch(field, given))

    async with asyncio.timeout(60):
        await asyncio.gather(*(produce(NAMES[::step]) for step in (1, -1, 1, -1)))
    expected = 4 * ROUNDS * len(NAMES) if field == "key" else len(NAMES)
    assert await fetch(database, "select count(*) from outbox.message") == [(expected,)]


async def test_a_batch_with_dedup_keys_keeps_its_order_in_ids_and_numbers(database: str) -> None:
    messages = [{"topic": str(place), "key": "k", "dedup_key": name} for place, name in enumerate("dbeacb")]
    returned = await fetch(database, "select * from outbox.enqueue_many($1)", orjson.dumps(messages).decode())
    rows = await fetch(database, "select message_id, topic from outbox.message order by seq")
    assert [topic for _, topic in rows] == ["0", "1", "2", "3", "4"]
    by_topic = {topic: message_id for message_id, topic in rows}
    assert [row[0] for row in returned] == [by_topic[topic] for topic in ["0", "1", "2", "3", "4", "1"]]


async def test_a_transaction_that_has_enqueued_cannot_be_prepared() -> None:
    with PostgresServer.start(fsync=False, settings={"max_prepared_transactions": "3"}) as own:
        await migrate(own.dsn())
        async with connected(own.dsn()) as connection:
            await connection.execute("begin; select outbox.enqueue('t')")
            with pytest.raises(
                asyncpg.FeatureNotSupportedError, match="cannot PREPARE a transaction that has executed"
            ):
                await connection.execute("prepare transaction 'p'")
        assert await fetch(own.dsn(), "select count(*) from outbox.message") == [(0,)]
