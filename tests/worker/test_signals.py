"""SIGTERM and SIGINT on the real process: the first drains, the second ends at once."""

from __future__ import annotations

import signal
from pathlib import Path
from time import monotonic

import pytest
from anyio import to_thread

from tests.support.eventually import eventually
from tests.support.processes import worker_process
from tests.support.running import counts, enqueue, fetch

pytestmark = pytest.mark.timeout(90)
SHUT = {"OUTBOX_SINK": "tests.support.sinks:shut_sink", "OUTBOX_CONCURRENCY": "3", "OUTBOX_PREFETCH": "3"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal_drains_and_exits_0(database: str, tmp_path: Path, number: signal.Signals) -> None:
    gate = tmp_path / "gate"
    await enqueue(database, 10)
    with worker_process(tmp_path, "w", DATABASE_URL=database, OUTBOX_TEST_GATE=str(gate), **SHUT) as worker:
        await worker.logged("claimed")
        worker.send(number)
        [reported] = await worker.logged("draining")
        gate.touch()
        assert await to_thread.run_sync(worker.wait) == 0
    found = await counts(database)
    assert reported["in_flight"] <= found["history"] <= reported["in_flight"] + 3
    assert found["history"] + found["message"] == 10
    [row] = await fetch(database, "select count(*) from outbox.message where lease_token is not null or attempts > 0")
    assert row[0] == 0


async def test_second_signal_ends_at_once_and_leaves_the_leases(database: str, tmp_path: Path) -> None:
    await enqueue(database, 10)
    never = tmp_path / "never"
    with worker_process(tmp_path, "w", DATABASE_URL=database, OUTBOX_TEST_GATE=str(never), **SHUT) as worker:
        await worker.logged("claimed")
        worker.send(signal.SIGTERM)
        await worker.logged("draining")
        began_s = monotonic()
        worker.send(signal.SIGTERM)
        assert await to_thread.run_sync(worker.wait) == 1
        assert monotonic() - began_s < 5.0
    assert (await counts(database))["message"] == 10


async def test_signal_before_the_database_is_reachable_exits_0(tmp_path: Path) -> None:
    with worker_process(tmp_path, "w", DATABASE_URL="postgresql://postgres@127.0.0.1:1/nothing", **SHUT) as worker:
        await worker.logged("database lost, trying again")
        worker.send(signal.SIGTERM)
        assert await to_thread.run_sync(worker.wait) == 0


async def test_drained_worker_says_goodbye_in_the_register(database: str, tmp_path: Path) -> None:
    null = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}
    with worker_process(tmp_path, "w", DATABASE_URL=database, **null) as worker:
        await worker.logged("worker started")
        assert await to_thread.run_sync(worker.stop) == 0

    async def state() -> str:
        return str((await fetch(database, "select state from outbox.worker"))[0][0])

    assert await eventually(state, lambda s: s == "stopped") == "stopped"
