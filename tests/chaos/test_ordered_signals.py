"""Order end to end: a start and its signals reach each workflow in order, while relay workers are killed."""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from anyio import to_thread
from temporalio.client import Client
from temporalio.worker import Worker

from outbox_temporal.sdk.worker import serving
from tests.support.eventually import eventually
from tests.support.processes import WorkerProcess, worker_process
from tests.support.sql import connected
from tests.temporal.definitions import Hears

pytestmark = [pytest.mark.chaos, pytest.mark.slow("delivers thousands of signals"), pytest.mark.timeout(1200)]
LONG = os.environ.get("OUTBOX_CHAOS") == "long"
KEYS, SIGNALS, KILLS = (200, 50, 10) if LONG else (40, 12, 3)
MESSAGES = KEYS * (1 + SIGNALS)
LEASE = {"OUTBOX_LEASE_S": "8", "OUTBOX_DELIVER_TIMEOUT_S": "3", "OUTBOX_PREFETCH": "50", "OUTBOX_POLL_INTERVAL_S": "1"}


async def produce(database: str, run: str, queue: str) -> None:
    """Every workflow's start, and its signals one after the other, each round of them in transactions of ten."""
    start = "select outbox.start_workflow('Hears', $1, $2::json, task_queue => $3, key => $1)"
    signal = (
        "select outbox.signal_workflow($1, 'hear', json_build_object('id', $2::text, 'number', $3::int), key => $1)"
    )
    ids = [f"{run}-{n}" for n in range(KEYS)]
    async with connected(database) as producer:
        for number in range(-1, SIGNALS):
            random.shuffle(ids)
            for place in range(0, KEYS, 10):
                async with producer.transaction():
                    for workflow_id in ids[place : place + 10]:
                        if number < 0:
                            await producer.execute(start, workflow_id, str(SIGNALS), queue)
                        else:
                            await producer.execute(signal, workflow_id, str(uuid4()), number)


async def test_each_workflow_gets_its_signals_once_and_in_order(
    database: str, temporal_client: Client, tmp_path: Path
) -> None:
    run = f"hears-{uuid4()}"
    environment = {
        "DATABASE_URL": database,
        "TEMPORAL_ADDRESS": temporal_client.service_client.config.target_host,
        **LEASE,
    }
    async with connected(database) as watcher:

        async def settled() -> int:
            return int(await watcher.fetchval("select count(*) from outbox.history"))

        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(worker_process(tmp_path, name, **environment))
                for name in (f"worker-{n}" for n in range(KILLS + 2))
            }
            await produce(database, run, run)
            for kill in range(KILLS):
                await eventually(settled, lambda n, k=kill: n >= MESSAGES * k // (KILLS + 1), timeout_s=300)
                await kill_one_at_work(workers, watcher)
            await eventually(settled, lambda n: n >= MESSAGES, timeout_s=900 if LONG else 240)
        assert await watcher.fetchval("select count(*) from outbox.dead_letter") == 0
        assert await watcher.fetchval("select count(*) from outbox.message") == 0
        assert await watcher.fetchval("select max(deliveries) from outbox.history") > 1, "a worker was killed at work"
    async with serving(Worker(temporal_client, task_queue=run, workflows=[Hears])):
        for n in range(KEYS):
            heard = await temporal_client.get_workflow_handle(f"{run}-{n}").result()
            assert heard == list(range(SIGNALS))


async def kill_one_at_work(workers: dict[str, WorkerProcess], watcher: asyncpg.Connection[asyncpg.Record]) -> None:
    """Kill a worker that holds leases."""

    async def holder() -> str | None:
        return await watcher.fetchval(
            """select w.name from outbox.message m join outbox.worker w using (worker_id)
               where m.lease_token is not null and w.name = any ($1) limit 1""",
            list(workers),
        )

    name = await eventually(holder, bool, timeout_s=60)
    assert name
    doomed = workers.pop(name)
    doomed.send(signal.SIGKILL)
    await to_thread.run_sync(doomed.wait)
