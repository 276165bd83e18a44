"""What waits at the gates, and whom it slows: a hot key beside others, a large tenant beside a small one.

    python -m bench.gates [--waiting N] [--seconds S] [--runs R] [--dsn DSN]

Hot key: messages with keys of their own come at a steady rate, and the time from their enqueue to their delivery is
taken, without and with N messages of one other key waiting. Tenants: how long a small tenant's 100 messages take from
their commit to their last delivery, alone and behind N messages of another tenant. The sink does nothing. Each run
measures both sides of each ratio one after the other; the figures are medians over the runs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

import anyio
import asyncpg

from bench.relay_throughput import null_sink
from outbox import config
from outbox.events import Completed, Event
from outbox.message import Message
from outbox.migrate import migrate
from outbox.worker import Worker
from workflows.embedded import PostgresServer, running

_EVERY_S = 0.02
_SMALL = 100
_HOT = "select outbox.enqueue('hot', '{}', key => 'hot') from generate_series(1, $1)"
_STANDING = "select count(*) from (select from outbox.message where gated and ready limit 11) standing"
_BIG = "select outbox.enqueue('big', '{}', tenant => 'big') from generate_series(1, $1)"
_FEW = "select outbox.enqueue('small', '{}', tenant => 'small') from generate_series(1, $1)"


class Deliveries:
    """A subscriber that knows when each message was delivered, of the topics that matter."""

    def __init__(self, topic: str) -> None:
        self.at_s: dict[str, float] = {}
        """Delivery times by payload or id, monotonic seconds."""
        self._topic = topic
        self._came = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Note deliveries."""
        if isinstance(event, Completed):
            for settlement in event.settlements:
                message: Message = settlement.message
                if message.topic == self._topic:
                    self.at_s[str(message.message_id)] = settlement.delivered_s
            self._came.set()

    async def count(self, wanted: int) -> None:
        """Return once so many have been delivered."""
        while len(self.at_s) < wanted:
            self._came = anyio.Event()
            await self._came.wait()


@asynccontextmanager
async def at_work(dsn: str, watch: Callable[[Event], None]) -> AsyncIterator[None]:
    """A worker for the block."""
    worker = Worker(config.load(database_url=dsn), null_sink, watch)
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        yield
        worker.stop()


async def latencies_ms(dsn: str, waiting: int, seconds: float) -> list[float]:
    """Enqueue to delivery of messages that come at a steady rate, whether or not the one before is through."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("truncate outbox.message, outbox.history")
    await connection.execute(_HOT.replace("$1", str(waiting)))
    deliveries = Deliveries("other")
    sent_s: dict[str, float] = {}
    async with at_work(dsn, deliveries):
        while await connection.fetchval(_STANDING) > 10:  # noqa: ASYNC110 - no event tells that the hot key is parked
            await anyio.sleep(0.1)
        began_s = monotonic()
        for n in range(int(seconds / _EVERY_S)):
            due_s = began_s + n * _EVERY_S
            await anyio.sleep(max(0.0, due_s - monotonic()))
            message_id = await connection.fetchval("select outbox.enqueue('other', '{}', key => $1)", f"other-{n}")
            sent_s[str(message_id)] = due_s  # what came late because the one before took long has waited too
        await deliveries.count(len(sent_s))
    await connection.close()
    return sorted((deliveries.at_s[message_id] - at_s) * 1000 for message_id, at_s in sent_s.items())


async def small_tenant_s(dsn: str, beside: int) -> float:
    """Seconds from the commit of a small tenant's messages to their last delivery."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("truncate outbox.message, outbox.history")
    deliveries = Deliveries("small")
    big = Deliveries("big")

    def watch(event: Event) -> None:
        deliveries(event)
        big(event)

    async with at_work(dsn, watch):
        if beside:
            await connection.execute(_BIG.replace("$1", str(beside)))
            await big.count(beside // 20)  # the worker is at it, as far ahead as it ever claims
        began_s = monotonic()
        await connection.execute(_FEW.replace("$1", str(_SMALL)))
        await deliveries.count(_SMALL)
    await connection.close()
    return max(deliveries.at_s.values()) - began_s


async def measure(dsn: str, waiting: int, seconds: float, runs: int) -> None:
    """Print both comparisons."""
    await migrate(dsn)
    ratios = []
    for run in range(runs):
        alone, beside = [await latencies_ms(dsn, n, seconds) for n in (0, waiting)]
        p50s, p99s = ([values[int(len(values) * q)] for values in (alone, beside)] for q in (0.5, 0.99))
        ratios.append(p99s[1] / p99s[0])
        print(
            f"run {run + 1}: others alone p50 {p50s[0]:.1f} p99 {p99s[0]:.1f} ms, beside a hot key with {waiting:,} "
            f"waiting p50 {p50s[1]:.1f} p99 {p99s[1]:.1f} ms, p99 ×{ratios[-1]:.2f}"
        )
    print(f"hot key: p99 of the others ×{statistics.median(ratios):.2f} (goal 2)")
    shares = []
    for run in range(runs):
        alone_s, beside_s = await small_tenant_s(dsn, 0), await small_tenant_s(dsn, waiting)
        shares.append(beside_s / alone_s)
        print(
            f"run {run + 1}: {_SMALL} messages alone {alone_s * 1000:.0f} ms, behind {waiting:,} of another tenant "
            f"{beside_s * 1000:.0f} ms, ×{shares[-1]:.2f}"
        )
    print(f"tenants: the small one's time ×{statistics.median(shares):.2f} (goal 2)")


async def main(dsn: str | None, waiting: int, seconds: float, runs: int) -> None:
    """Measure on the given database, whose outbox is emptied, or on an embedded one."""
    if dsn:
        await measure(dsn, waiting, seconds, runs)
    else:
        async with running(partial(PostgresServer.start)) as postgres:
            await measure(postgres.dsn(), waiting, seconds, runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn")
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=5)
    anyio.run(partial(main, **vars(parser.parse_args())), backend_options={"use_uvloop": True})
