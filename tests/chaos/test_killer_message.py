"""A message that kills every process that touches it is found, and no other message is buried with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyio import to_thread

from tests.support.processes import worker_process
from tests.support.running import counts, enqueue, fetch

pytestmark = [pytest.mark.chaos, pytest.mark.slow("loses a process for each delivery"), pytest.mark.timeout(240)]

INNOCENT = 8
SETTINGS = {
    "OUTBOX_SINK": "tests.support.sinks:deadly_sink",
    "OUTBOX_LEASE_S": "5",
    "OUTBOX_DELIVER_TIMEOUT_S": "1",
    "OUTBOX_MAX_DELIVERIES": "4",
}


async def test_killer_is_quarantined_and_messages_claimed_with_it_are_delivered(database: str, tmp_path: Path) -> None:
    await enqueue(database, INNOCENT // 2)
    [killer] = await enqueue(database, topic="killer")
    await enqueue(database, INNOCENT // 2)
    for victims in range(4):
        with worker_process(tmp_path, f"victim-{victims}", DATABASE_URL=database, **SETTINGS) as victim:
            assert await to_thread.run_sync(victim.wait) == -9, victim.log.read_text()[-2000:]
    with worker_process(tmp_path, "survivor", DATABASE_URL=database, **SETTINGS) as survivor:
        [line] = await survivor.logged("message became a dead letter")
        assert line["reason"] == "quarantined"
        await to_thread.run_sync(survivor.stop)

    assert await counts(database) == {"message": 0, "history": INNOCENT, "dead_letter": 1}
    [dead] = await fetch(database, "select message_id, reason, attempts from outbox.dead_letter")
    assert tuple(dead) == (killer, "quarantined", 0)
    [spared] = await fetch(database, "select min(deliveries), max(attempts) from outbox.history")
    assert spared[0] >= 2, "each innocent message was really claimed together with the killer, more than once"
    assert spared[1] == 0
