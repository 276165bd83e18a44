"""The safety net for keys that no trigger called costs less than a second a call, however many keys wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic

import anyio
import pytest

from outbox.model.events import MaintenanceFailed
from outbox.worker.maintenance import Maintenance
from tests.support.eventually import eventually
from tests.support.running import fetch
from tests.support.sql import Clock, clock

pytestmark = pytest.mark.timeout(180)
KEYS = 30_000
SLEEPERS = """
    insert into outbox.message (message_id, due_at, available_at, created_at, topic, key, restricted, ready, in_flight)
    select outbox.new_message_id(), case when place = 0 then now() else 'infinity' end, now(), now(), 't', 'k' || n, true, false, place = 0
    from generate_series(1, $1::int) n, generate_series(0, 1) place
"""
LOST = "update outbox.message set in_flight = false, due_at = 'infinity' where key = any ($1)"


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    async with clock(database) as worker:
        yield worker


async def test_each_call_is_short_and_all_keys_are_looked_at(worker: Clock, database: str) -> None:
    await fetch(database, SLEEPERS, KEYS)
    await fetch(database, "analyze outbox.message")
    await fetch(database, LOST, ["k1", f"k{KEYS}", f"k{KEYS - 1}"])
    calls, called, longest_s, after = 0, 0, 0.0, ""
    while True:
        began_s = monotonic()
        found, last = await worker.store.call_sleepers(after)
        longest_s = max(longest_s, monotonic() - began_s)
        calls, called = calls + 1, called + found
        if last is None:
            break
        assert last > after
        after = last
    assert called == 3
    assert calls == KEYS // 10_000 + 1
    assert longest_s < 1.0


async def test_a_worker_looks_at_all_keys_and_goes_on_where_it_failed(worker: Clock, database: str) -> None:
    await fetch(database, SLEEPERS, 25_000)
    await fetch(database, LOST, ["k1", "k25000", "k9999"])
    faults: list[object] = []
    maintenance = Maintenance(worker.store, worker.retention, faults.append, history_days=1)

    async def called() -> int:
        [(left,)] = await fetch(
            database, "select count(*) from outbox.message where key = any ($1) and ready", ["k1", "k25000", "k9999"]
        )
        return int(left)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(maintenance.run)
        await eventually(called, lambda calls: calls >= 3, timeout_s=60)
        tasks.cancel_scope.cancel()
    assert not [fault for fault in faults if isinstance(fault, MaintenanceFailed)]
