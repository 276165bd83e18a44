"""Temporal is away for longer than any message's retries would last: no message dies of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from outbox_temporal.servers.temporal import TemporalServer
from tests.support.eventually import eventually
from tests.support.processes import worker_process
from tests.support.running import counts, fetch

pytestmark = [pytest.mark.chaos, pytest.mark.slow("outlasts every retry"), pytest.mark.timeout(180)]

SETTINGS = {
    "OUTBOX_LEASE_S": "6",
    "OUTBOX_DELIVER_TIMEOUT_S": "2",
    "OUTBOX_MAX_ATTEMPTS": "2",
    "OUTBOX_RETRY_BASE_S": "0.1",
    "OUTBOX_RETRY_CAP_S": "0.2",
}
BUDGET_S = 2 * (2 + 0.2)
"""Every attempt of a message at its time-out, and every pause between them: after this, a counted failure is a death."""
OUTAGE_S = 2 * BUDGET_S
MESSAGES = 50
RESUMED_WITHIN_S = 2.0 if os.environ.get("OUTBOX_CHAOS") == "long" else 10.0
"""What is promised is measured with nothing else at work; beside other tests Temporal itself takes seconds to answer."""


async def test_outage_longer_than_every_retry_budget_kills_no_message(database: str, tmp_path: Path) -> None:
    with (
        TemporalServer.start(ui=False) as temporal,
        worker_process(tmp_path, "w", DATABASE_URL=database, TEMPORAL_ADDRESS=temporal.address, **SETTINGS) as worker,
    ):
        await worker.logged("worker started")
        await to_thread.run_sync(temporal.stop)
        await start_workflows(database)
        await worker.logged("sink unavailable, holding")
        await anyio.sleep(OUTAGE_S)  # is what it is about
        assert await counts(database) == {"message": MESSAGES, "history": 0, "dead_letter": 0}
        await to_thread.run_sync(temporal.restart)
        back_at = datetime.now(UTC)
        await eventually(lambda: counts(database), lambda n: n["history"] == MESSAGES)

    [row] = await fetch(database, "select max(attempts) as attempts, min(settled_at) as first from outbox.history")
    assert row["attempts"] == 0
    assert (row["first"] - back_at).total_seconds() < RESUMED_WITHIN_S
    assert (await counts(database))["dead_letter"] == 0


async def start_workflows(database: str) -> None:
    await fetch(
        database,
        "select outbox.start_workflow('Probe', 'probe-' || n, '{}', task_queue => 'unserved') from generate_series(1, $1) n",
        MESSAGES,
    )
