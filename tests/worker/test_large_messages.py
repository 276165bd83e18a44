"""Claims and workers are bounded by bytes. `test_memory.py` shows that memory is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from outbox.model.errors import DatabaseUnavailable
from outbox.model.message import CLAIM_BYTES, ClaimedBatch, Message
from outbox.postgres.pool import Pool
from outbox.relay.buffer import Buffer
from outbox.relay.claim_size import ClaimSize
from tests.support.running import fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import clock

MIB = 2**20


async def enqueue_large(dsn: str, count: int, size: int, arguments: str = "") -> None:
    statement = f"select count(outbox.enqueue('large', to_json(repeat('x', {size - 2})){arguments})) from generate_series(1, {count}) i"
    await fetch(dsn, statement)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [("", None), ("", "other"), (", key => 'k' || i", None), (", key => 'k'", None), (", tenant => 't'", None)],
    ids=["plain", "ruled", "keys", "series", "tenant"],
)
async def test_claim_stops_where_its_messages_have_the_bytes(database: str, arguments: str, rule: str | None) -> None:
    await enqueue_large(database, 6, MIB, arguments)
    if rule:
        await fetch(database, "select outbox.pause($1)", rule)
    async with clock(database) as worker:
        worker.pass_s(60)
        how: dict[str, Any] = {"lease_s": 60.0, "worker_id": worker.worker_id, "max_bytes": 2 * MIB + 5}
        taken: list[int] = []
        for _ in range(3):
            if arguments:
                batch = await worker.store.claim_restricted(100, **how, suspect_after=2, series=8)
            elif rule:
                batch = await worker.store.claim_ruled(100, **how)
            else:
                batch = await worker.store.claim(100, **how)
            taken.append(len(batch.messages))
            assert {message.large_bytes for message in batch.messages} <= {MIB + 2}
            if "'k'" in arguments and "|| i" not in arguments:
                break  # a key's next series goes when this one is settled
        assert taken[0] == 3
        assert sum(taken) == (3 if len(taken) == 1 else 6)


async def test_one_message_is_claimed_however_large(database: str) -> None:
    await enqueue_large(database, 2, 2_000_000)
    async with clock(database) as worker:
        worker.pass_s(60)
        batch = await worker.store.claim(100, lease_s=60, worker_id=worker.worker_id, max_bytes=1)
        assert len(batch.messages) == 1


async def test_worker_holds_no_more_large_messages_than_it_has_room_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue_large(database, 80, MIB)
    held: list[int] = []
    counted = Buffer.count_in

    def seen(self: Buffer, messages: Sequence[Message]) -> None:
        counted(self, messages)
        held.append(self.large_bytes)

    monkeypatch.setattr(Buffer, "count_in", seen)
    sink = FakeSink()
    sink.block()
    async with running(database, sink) as relay:
        await sink.wait_until(lambda: sink.in_flight >= 32)
        sink.unblock()
        await relay.wait_completed(80)
    assert 32 * MIB <= max(held) <= 33 * MIB


async def test_claims_that_fail_on_a_slow_link_take_less_until_they_pass(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue_large(database, 20, MIB)
    asked: list[int] = []
    fetched = Pool.fetch

    async def over_a_slow_link(self: Pool, statement: str, *values: object) -> object:
        if "large_bytes" in statement:
            asked.append(int(str(values[-1])))
            if asked[-1] > 3 * MIB:
                raise DatabaseUnavailable("claim: no answer in time")
        return await fetched(self, statement, *values)

    monkeypatch.setattr(Pool, "fetch", over_a_slow_link)
    async with running(database) as relay:
        await relay.wait_completed(20)
    assert asked[:3] == [8 * MIB, 4 * MIB, 2 * MIB]


def test_claim_after_large_ones_asks_for_twice_as_many_as_fit() -> None:
    claim_size = ClaimSize(Buffer(concurrency=64, prefetch=2048, batch=500, held_bytes=32 * MIB))
    usual = claim_size.limit()
    large = Message(None, 1, "t", None, None, "{}", None, 1, 0, 0, 0.0, 1, large_bytes=MIB)  # type: ignore[arg-type]
    claim_size.claimed(ClaimedBatch([large] * 3, 0.0, 60.0, more=False))
    assert claim_size.limit() == 1 + 2 * 8
    claim_size.claimed(ClaimedBatch([large._replace(large_bytes=5000)] * 3, 0.0, 60.0, more=False))
    assert claim_size.limit() == usual, "many of these fit into one claim"
    claim_size.claimed(ClaimedBatch([large._replace(large_bytes=None)] * 6, 0.0, 60.0, more=True))
    assert claim_size.limit() == usual
    claim_size.failed()
    assert claim_size.max_bytes() == CLAIM_BYTES // 2
    claim_size.claimed(ClaimedBatch([], 0.0, 60.0, more=False))
    assert claim_size.max_bytes() == CLAIM_BYTES
