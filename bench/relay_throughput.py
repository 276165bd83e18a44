"""How many rows a second one worker moves through a sink that does nothing: claim, deliver, settle, history on.

`python -m bench.relay_throughput --rows 200000 --runs 5` measures on an embedded PostgreSQL with fsync on; --dsn names
a database of yours instead, whose outbox is then emptied. With --keys N, messages that are spread over N keys are
measured in turn with messages that have none, and with --tenants N over N tenants.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

import anyio

from outbox import config
from outbox.database import connected
from outbox.events import Completed, Event
from outbox.message import Message
from outbox.migrate import migrate
from outbox.sink import Delivered, SinkContext, Unavailable
from outbox.worker import Worker
from workflows.embedded import PostgresServer, running

_SERVER = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
_FILL = """
select count(*)
from (
    select json_agg(json_build_object(
        'topic', 'bench', 'payload', json_build_object('text', repeat('x', 100)),
        'key', 'key-' || i % nullif($2::int, 0), 'tenant', 'tenant-' || i % nullif($3::int, 0))) as m
    from generate_series(1, $1::int) i
    group by i / 10000
) batch, lateral outbox.enqueue_many(batch.m)
"""
_ANSWER = Delivered("bench", "run")


class NullSink:
    """Accepts everything at once."""

    async def deliver(self, _message: Message) -> Delivered:
        """Accept."""
        return _ANSWER

    async def probe(self) -> Unavailable | None:
        """Be available."""
        return None


@asynccontextmanager
async def null_sink(_context: SinkContext) -> AsyncIterator[NullSink]:
    """The sink factory."""
    yield NullSink()


async def prepare(dsn: str, rows: int, keys: int, tenants: int) -> None:
    """Migrate and leave exactly `rows` pending messages behind, spread over so many keys and tenants; 0 for none."""
    await migrate(dsn)
    async with connected(dsn, application_name="bench") as connection:
        await connection.execute("truncate outbox.message, outbox.history, outbox.dead_letter")
        await connection.execute(_FILL, rows, keys, tenants)
        await connection.execute("vacuum analyze outbox.message")
        await connection.execute("checkpoint")


async def drain(dsn: str, rows: int) -> float:
    """Run one worker until all rows are settled; return rows a second from its first claim on."""
    done, began_s, ended_s = 0, 0.0, 0.0
    finished = anyio.Event()

    def watch(event: Event) -> None:
        nonlocal done, began_s, ended_s
        began_s = began_s or monotonic()
        if isinstance(event, Completed):
            done += len(event.settlements)
            if done >= rows:
                ended_s = monotonic()
                finished.set()

    settings = config.load(database_url=dsn)
    worker = Worker(settings, null_sink, watch)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await finished.wait()
        worker.stop()
    return rows / (ended_s - began_s)


async def main(dsn: str | None, rows: int, runs: int, keys: int, tenants: int) -> None:
    """Measure on the given database or on an embedded one."""
    if dsn:
        await measure(dsn, rows, runs, keys, tenants)
    else:
        async with running(partial(PostgresServer.start, settings=_SERVER)) as postgres:
            await measure(postgres.dsn(), rows, runs, keys, tenants)


async def measure(dsn: str, rows: int, runs: int, keys: int, tenants: int) -> None:
    """Measure in turn what passes no gate and what was asked for; print medians, ranges and the ratio in each turn."""
    scenarios = {"plain": (0, 0)}
    if keys or tenants:
        scenarios[f"{keys} keys, {tenants} tenants"] = (keys, tenants)
    rates: dict[str, list[float]] = {name: [] for name in scenarios}
    for run in range(runs):
        for name, spread in scenarios.items():
            await prepare(dsn, rows, *spread)
            rates[name].append(await drain(dsn, rows))
            print(f"run {run + 1}: {rates[name][-1]:,.0f} rows/s {name}")
    for name, measured in rates.items():
        ratio = statistics.median(rate / plain for rate, plain in zip(measured, rates["plain"], strict=True))
        extent = f"min {min(measured):,.0f}, max {max(measured):,.0f}, {runs} runs of {rows:,} rows"
        print(f"{name}: median {statistics.median(measured):,.0f} rows/s, ×{ratio:.2f} ({extent})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keys", type=int, default=0)
    parser.add_argument("--tenants", type=int, default=0)
    arguments = parser.parse_args()
    anyio.run(partial(main, **vars(arguments)), backend_options={"use_uvloop": True})
