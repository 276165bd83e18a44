"""Procrastinate, tuned as its documentation says.

- "The shorter your average job execution time, the more your pool will need to contain as many connections as your
  concurrency (plus one)" (docs/discussions.md); LISTEN has a connection of its own beside them;
- finished jobs are deleted (docs/howto/production/delete_finished_jobs.md), so that the table stays small;
- jobs are put in with `batch_defer` (docs/howto/basics/batch_defer.md).

It claims one job at a time; 5 to 50 of them at once made no difference larger than the noise.
"""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version

import procrastinate

from outbox_bench.peers.talk import Marks, run, serve_commands, timed

CONCURRENCY = 20
DELETE = "successful"
PAYLOAD = {"organization_id": 42}


async def main(dsn: str) -> None:
    """Serve the benchmark."""
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=CONCURRENCY + 1)
    app = procrastinate.App(connector=connector)
    began = Marks(1)

    async def noop(organization_id: int) -> None:  # noqa: ARG001 - what every contender's job carries
        began()

    task = app.task(name="noop")(noop)

    async def prepare() -> dict[str, object]:
        made = "select to_regclass('procrastinate_jobs') is not null as made"
        if not (await connector.execute_query_one_async(made))["made"]:
            await app.schema_manager.apply_schema_async()
        return {
            "versions": {"procrastinate": version("procrastinate"), "psycopg": version("psycopg")},
            "settings": {"concurrency": CONCURRENCY, "delete_jobs": DELETE},
            "unfinished": "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))",
        }

    async def fill(jobs: int) -> None:
        await connector.execute_query_async("truncate procrastinate_jobs cascade")
        for start in range(0, jobs, 1000):
            await task.batch_defer_async(*[PAYLOAD] * min(1000, jobs - start))

    async def enqueue() -> dict[str, int]:
        return await timed(task.defer_async(**PAYLOAD))

    async def work(every: int) -> None:
        nonlocal began
        began = Marks(every)
        working.append(
            asyncio.create_task(
                app.run_worker_async(concurrency=CONCURRENCY, delete_jobs=DELETE, install_signal_handlers=False)
            )
        )

    working: list[asyncio.Task[None]] = []
    async with app.open_async():
        await serve_commands({"prepare": prepare, "fill": fill, "enqueue": enqueue, "work": work})


if __name__ == "__main__":
    run(main(sys.argv[1]))
