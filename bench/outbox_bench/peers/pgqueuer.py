"""PgQueuer, tuned as its guide says (docs/guides/performance-tuning.md).

- `pgq autovac` is run after the installation, and the tables stay durable;
- "Increase batch_size when jobs are short-lived"; `max_concurrent_tasks` stays without a cap;
- a connection of its own for each manager, not a pool, with asyncpg, the fastest driver of its benchmark page;
- several managers in the process, as its own benchmark has (tools/benchmark.py, `--dequeue`).

It names no values for load: these did best among batches of 10 to 1000 and 1 to 5 managers on one machine, on one day.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from uuid import uuid4

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

from outbox_bench.peers.talk import Marks, run, serve_commands, timed

BATCH = 500
MANAGERS = 3
ENTRYPOINT = "noop"


async def main(dsn: str, *, starts: bool) -> None:
    """Serve the benchmark. Where a job starts a workflow, it counts as begun once that is acknowledged."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(dsn)))

    async def prepare() -> dict[str, object]:
        if not await queries.has_table("pgqueuer"):
            await queries.install()
            await queries.optimize_autovacuum()
        return {
            "versions": {"pgqueuer": version("pgqueuer"), "asyncpg": version("asyncpg")},
            "settings": {"batch_size": BATCH, "managers": MANAGERS, "durability": "durable"},
            "unfinished": "select exists (select from pgqueuer)",
        }

    async def fill(jobs: int) -> None:
        await queries.clear_queue()
        await queries.clear_statistics_log()
        await queries.enqueue([ENTRYPOINT] * jobs, [_payload()] * jobs, [0] * jobs)

    async def enqueue() -> dict[str, int]:
        return await timed(queries.enqueue([ENTRYPOINT], [_payload()], [0]))

    async def work(every: int) -> None:
        handle = await _handler(Marks(every), starts)
        for _ in range(1 if every == 1 else MANAGERS):  # for a single job they would only get in each other's way
            manager = PgQueuer(AsyncpgDriver(await asyncpg.connect(dsn)))
            manager.entrypoint(ENTRYPOINT)(handle)
            working.append(asyncio.create_task(manager.run(batch_size=BATCH)))

    working: list[asyncio.Task[None]] = []
    await serve_commands({"prepare": prepare, "fill": fill, "enqueue": enqueue, "work": work})


def _payload() -> bytes:
    return b'{"organization_id": 42}'


async def _handler(began: Marks, starts: bool) -> Callable[[Job], Awaitable[None]]:
    if not starts:

        async def noop(_job: Job) -> None:
            began()

        return noop

    client = await Client.connect(**ClientConfig.load_client_connect_config())

    async def start(_job: Job) -> None:
        await client.start_workflow("Bench", {"organization_id": 42}, id=f"pgqueuer-{uuid4().hex}", task_queue="bench")
        began()

    return start


if __name__ == "__main__":
    run(main(sys.argv[1], starts="start" in sys.argv[2:]))
