"""The takeover scenario kills a worker process, and another worker gets its messages."""

from __future__ import annotations

import psutil
import pytest

from outbox.model.errors import OutboxError
from outbox_bench.load.processes import worker_process
from outbox_bench.scenarios import takeover
from tests.bench.measuring import by_name, measured


async def test_time_from_the_kill_to_the_last_claim_is_reported(database: str) -> None:
    report = await measured(takeover, database)
    [took_s] = by_name(report)["kill -9 to takeover"]
    assert 0 < took_s < 4.0  # the lease has seven seconds
    assert not report.notes, "it was no lease that ended"
    assert len(report.samples["kill to claim"]) == 5
    assert max(report.samples["kill to claim"]) == pytest.approx(1000 * took_s)


async def test_a_killed_worker_process_is_gone(database: str) -> None:
    async with worker_process(database, sink="outbox_bench.load.nullsink:null_sink") as worker:
        process = psutil.Process(worker.pid)
        await worker.kill()
        assert not process.is_running()


async def test_a_worker_process_ends_with_its_block(database: str) -> None:
    async with worker_process(database, sink="outbox_bench.load.nullsink:null_sink") as worker:
        process = psutil.Process(worker.pid)
    assert not process.is_running()


async def test_a_worker_process_that_cannot_start_says_why(database: str) -> None:
    with pytest.raises((OutboxError, ExceptionGroup)) as raised:
        async with worker_process(database, sink="outbox_bench.load.nullsink:no_sink"):
            pass
    assert raised.group_contains(OutboxError, match="no_sink") or "no_sink" in str(raised.value)
