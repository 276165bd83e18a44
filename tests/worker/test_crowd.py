"""A ring reaches every worker, and its message is for one: a crowd must not run a statement each for every message."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from time import monotonic
from typing import Any

import anyio
import pytest

from outbox.model.events import SourceReady
from outbox.model.message import ClaimedBatch
from outbox.store.messages import Store
from tests.support.running import running
from tests.support.sinks import FakeSink
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(120)
WORKERS = 15
WARM_UP, COUNTED = 40, 60
EVERY_S = 0.04


async def test_crowd_spreads_its_answers_and_the_first_comes_soon(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FakeSink()
    claims = 0
    claim = Store.claim

    async def counted(store: Store, limit: int, **arguments: Any) -> ClaimedBatch:
        nonlocal claims
        claims += 1
        return await claim(store, limit, **arguments)

    monkeypatch.setattr(Store, "claim", counted)

    async def delays_s(count: int) -> list[float]:
        """Seconds from each commit to its delivery, at the pace of the load."""
        found = []
        due_s = monotonic()
        for _ in range(count):
            before = len(sink.received)
            await producer.execute("select outbox.enqueue('test')")
            committed_s = monotonic()
            await sink.wait_received(before + 1)
            found.append(monotonic() - committed_s)
            due_s += EVERY_S
            await anyio.sleep(max(0.0, due_s - monotonic()))
        return found

    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(connected(database))
        for n in range(WORKERS):
            relay = await stack.enter_async_context(running(database, sink, worker_name=f"w{n}", mode="listen"))
            await relay.log.wait_for(SourceReady)
            if n == 0:
                fallback_interval_s = median(await delays_s(WARM_UP))
        await delays_s(WARM_UP)
        claims, began_s = 0, monotonic()
        crowd_s = median(await delays_s(COUNTED))
        each_per_s = claims / WORKERS / (monotonic() - began_s)
    assert each_per_s < 14, "25 messages a second ring here, and an answer to each would be as many claims"
    assert crowd_s < max(0.1, 10 * fallback_interval_s), (
        "of fifteen that wait up to a quarter of a second, the first comes soon"
    )
