"""A ring reaches every worker, and its message is for one: a crowd must not run a statement each for every message."""

from __future__ import annotations

from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import anyio
import pytest

from outbox.events import SourceReady
from outbox.message import Lease
from outbox.store import Store
from tests.support.running import enqueue, running
from tests.support.sinks import FakeSink

pytestmark = pytest.mark.timeout(120)
WORKERS = 15
WARM_UP, COUNTED = 40, 60
EVERY_S = 0.04


async def test_crowd_spreads_its_answers_and_the_first_comes_soon(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FakeSink()
    delays_s: list[float] = []
    claims = 0
    claim = Store.claim

    async def counted(store: Store, limit: int, **arguments: Any) -> Lease:
        nonlocal claims
        claims += 1
        return await claim(store, limit, **arguments)

    monkeypatch.setattr(Store, "claim", counted)

    async def deliver_some(count: int) -> None:
        due_s = monotonic()
        for _ in range(count):
            before = len(sink.received)
            began_s = monotonic()
            await enqueue(database)
            await sink.wait_received(before + 1)
            delays_s.append(monotonic() - began_s)
            due_s += EVERY_S
            await anyio.sleep(max(0.0, due_s - monotonic()))  # the pace of the load

    async with AsyncExitStack() as stack:
        for n in range(WORKERS):
            relay = await stack.enter_async_context(running(database, sink, worker_name=f"w{n}", mode="listen"))
            await relay.log.wait_for(SourceReady)
        await deliver_some(WARM_UP)
        claims, delays_s = 0, []
        began_s = monotonic()
        await deliver_some(COUNTED)
        each_per_s = claims / WORKERS / (monotonic() - began_s)
    assert each_per_s < 14, "25 messages a second ring here, and an answer to each would be as many claims"
    assert sorted(delays_s)[COUNTED // 2] < 0.1
