"""A worker that stands still past its lease has lost its messages, and finds that out before it writes anything."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.processes import worker_process
from tests.support.running import enqueue, fetch

pytestmark = [pytest.mark.chaos, pytest.mark.slow("outlasts a lease"), pytest.mark.timeout(120)]

LEASE = {"OUTBOX_LEASE_S": "6", "OUTBOX_DELIVER_TIMEOUT_S": "2"}
MESSAGES = 20


async def test_worker_frozen_past_its_lease_overwrites_nothing(database: str, tmp_path: Path) -> None:
    await enqueue(database, MESSAGES)
    gate = tmp_path / "gate"
    frozen_one = {"OUTBOX_SINK": "tests.support.sinks:shut_sink", "OUTBOX_TEST_GATE": str(gate)}
    quick_one = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}

    async def leased() -> int:
        return int((await fetch(database, "select count(*) from outbox.message where lease_token is not null"))[0][0])

    async def completed() -> int:
        return int((await fetch(database, "select count(*) from outbox.history"))[0][0])

    with worker_process(tmp_path, "frozen", DATABASE_URL=database, **LEASE, **frozen_one) as frozen:
        await eventually(leased, lambda n: n == MESSAGES)
        frozen.send(signal.SIGSTOP)
        with worker_process(tmp_path, "quick", DATABASE_URL=database, **LEASE, **quick_one):
            await eventually(completed, lambda n: n == MESSAGES, timeout_s=40)
        before = await fetch(database, "select * from outbox.history order by seq")
        gate.touch()
        frozen.send(signal.SIGCONT)
        lost = await frozen.logged("lease lost before settling, nothing was overwritten")

    assert all(line["certain"] for line in lost)
    assert await fetch(database, "select * from outbox.history order by seq") == before
    [counted] = await fetch(
        database,
        """select count(*) as rows, count(distinct h.message_id) as messages, array_agg(distinct w.name) as workers,
                  max(h.attempts) as attempts
           from outbox.history h join outbox.worker w using (worker_id)""",
    )
    assert dict(counted) == {"rows": MESSAGES, "messages": MESSAGES, "workers": ["quick"], "attempts": 0}
