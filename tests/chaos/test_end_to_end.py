"""The promise, on real servers, with real processes dying: counted in Temporal, not by us."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from anyio import to_thread
from temporalio.client import Client

from outbox_temporal.servers.temporal import TemporalServer
from tests.support.eventually import eventually
from tests.support.processes import worker_process

pytestmark = [pytest.mark.chaos, pytest.mark.slow("starts thousands of workflows"), pytest.mark.timeout(1200)]

LONG = os.environ.get("OUTBOX_CHAOS") == "long"
MESSAGES = 20_000 if LONG else 2_000
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Temporal's state outlives its restart, which is all that is needed; on a disk the dev server is several times slower."""
SETTLED_WITHIN_S = 600 if LONG else 240
LEASE = {"OUTBOX_LEASE_S": "8", "OUTBOX_DELIVER_TIMEOUT_S": "3", "OUTBOX_PREFETCH": "100"}
START = "select outbox.start_workflow('Probe', $1, '{}', task_queue => 'unserved')"


async def enqueue_some_and_roll_back_others(database: str) -> tuple[set[str], set[str]]:
    """Commit MESSAGES starts in transactions of ten; roll every tenth transaction back."""
    committed: set[str] = set()
    rolled_back: set[str] = set()
    connection = await asyncpg.connect(database)
    number = 0
    while len(committed) < MESSAGES:
        transaction = connection.transaction()
        await transaction.start()
        ids = [f"probe-{number}-{i}" for i in range(10)]
        await connection.executemany(START, [(i,) for i in ids])
        if number % 10 == 3:
            await transaction.rollback()
            rolled_back.update(ids)
        else:
            await transaction.commit()
            committed.update(ids)
        number += 1
    await connection.close()
    return committed, rolled_back


async def test_every_committed_message_has_exactly_one_workflow_and_no_rolled_back_one_has_any(
    database: str, tmp_path: Path
) -> None:
    with TemporaryDirectory(dir=MEMORY) as state, TemporalServer.start(Path(state), ui=False) as temporal:
        environment = {"DATABASE_URL": database, "TEMPORAL_ADDRESS": temporal.address, **LEASE}
        watcher = await asyncpg.connect(database)

        async def settled() -> int:
            return int(await watcher.fetchval("select count(*) from outbox.history"))

        with (
            worker_process(tmp_path, "doomed", **environment) as doomed,
            worker_process(tmp_path, "survivor", **environment) as survivor,
        ):
            committed, rolled_back = await enqueue_some_and_roll_back_others(database)
            await eventually(settled, lambda n: n >= MESSAGES // 4, timeout_s=SETTLED_WITHIN_S)
            doomed.send(signal.SIGKILL)
            await eventually(settled, lambda n: n >= MESSAGES // 2, timeout_s=SETTLED_WITHIN_S)
            await to_thread.run_sync(temporal.restart)
            await eventually(settled, lambda n: n >= MESSAGES, timeout_s=SETTLED_WITHIN_S)
            survivor.send(signal.SIGTERM)
            assert await to_thread.run_sync(survivor.wait) == 0, survivor.log.read_text()[-2000:]

        assert await watcher.fetchval("select count(*) from outbox.message") == 0
        assert await watcher.fetchval("select count(*) from outbox.dead_letter") == 0
        assert await watcher.fetchval("select max(attempts) from outbox.history") == 0
        await watcher.close()
        found = await executions(temporal.address, len(committed))
        assert set(found) == committed
        assert not set(found) & rolled_back
        assert set(found.values()) == {1}


async def executions(address: str, expected: int) -> Counter[str]:
    """Temporal's own list, once it shows at least the expected number (it is eventually consistent)."""
    client = await Client.connect(address)

    async def listed() -> Counter[str]:
        query = 'WorkflowType = "Probe"'
        return Counter([execution.id async for execution in client.list_workflows(query, page_size=1000)])

    return await eventually(listed, lambda found: found.total() >= expected)
