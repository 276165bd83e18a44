"""Workers are killed one after the other while messages keep coming, and no message waits for a lease to end."""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from tests.support.eventually import eventually
from tests.support.processes import WorkerProcess, worker_process
from tests.support.running import fetch
from tests.support.sql import connected

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow("kills several processes, one after another"),
    pytest.mark.timeout(600),
]
LONG = os.environ.get("OUTBOX_CHAOS") == "long"
KILLS = 20 if LONG else 4
WORKERS = 3
HELD_BY = "select from outbox.message m join outbox.worker w using (worker_id) where w.name = $1 and m.leased_until > now() limit 1"
SETTINGS = {"OUTBOX_SINK": "tests.support.sinks:slow_sink", "OUTBOX_LEASE_S": "300", "OUTBOX_PREFETCH": "50"}


async def test_nothing_waits_for_the_leases_of_the_killed(database: str, tmp_path: Path) -> None:
    producing = True

    async def produce() -> None:
        async with connected(database) as producer:
            while producing:
                await producer.execute(
                    "select outbox.enqueue('t', '{}', key => case when n % 2 = 0 then 'k' || n % 20 end) from generate_series(1, 40) n"
                )
                await anyio.sleep(0.25)  # the pace of the load: 160 messages a second

    async def kill_a_holder(living: list[WorkerProcess]) -> None:
        """Kill one that holds messages: it is stopped first, so that it cannot settle them meanwhile."""

        async def killed() -> bool:
            victim = random.choice(living)
            victim.send(signal.SIGSTOP)
            holds = bool(await fetch(database, HELD_BY, victim.log.stem))
            victim.send(signal.SIGKILL if holds else signal.SIGCONT)
            return holds

        await eventually(killed, bool)

    async def held_by_newest() -> bool:
        return bool(await fetch(database, HELD_BY, workers[-1].log.stem))

    async def left() -> int:
        return int((await fetch(database, "select count(*) from outbox.message"))[0][0])

    with ExitStack() as processes:
        workers: list[WorkerProcess] = []

        async def start() -> None:
            name = f"worker-{len(workers)}"
            workers.append(processes.enter_context(worker_process(tmp_path, name, DATABASE_URL=database, **SETTINGS)))
            await workers[-1].logged("presence shown")

        for _ in range(WORKERS):
            await start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            for _ in range(KILLS):
                await eventually(held_by_newest, bool)  # the replacement of the last victim is at work
                await kill_a_holder([w for w in workers if w.process.poll() is None])
                await start()
            producing = False
        await eventually(left, lambda n: n == 0, timeout_s=30)  # a tenth of a lease
        rescued = [line for worker in workers for line in worker.lines("worker died, its leases are ended")]
        lost = [
            line for worker in workers for line in worker.lines("lease lost before settling, nothing was overwritten")
        ]
    assert rescued
    assert not lost, "the survivors kept their leases"
    dead = {w.log.stem for w in workers if w.process.returncode == -signal.SIGKILL}
    assert {line["worker"] for line in rescued} <= dead
    [row] = await fetch(database, "select count(*), count(distinct message_id), max(attempts) from outbox.history")
    assert (row[0], row[2]) == (row[1], 0)
    out_of_order = """
        select count(*) from (select seq, lag(seq) over (partition by key order by claimed_at, seq) as before from outbox.history where key is not null) h
        where seq < before"""
    assert (await fetch(database, out_of_order))[0][0] == 0
