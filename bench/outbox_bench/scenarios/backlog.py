"""Does a backlog slow the relay down? The same number of messages is drained from small and from large backlogs.

At the same time urgent messages, of the highest priority, are committed one after the other. The time to their
delivery shows whether they overtake the backlog. Before each drain the claim is run once under EXPLAIN and rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, cast

import anyio

from outbox.config import settings as config
from outbox.store.messages import Store
from outbox_bench.load.in_process import TOPIC, Watch, connected, empty, fill, relay_at_work, settle_down
from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Goal, Measurements, ms
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox.postgres.pool import Pool

_URGENT = "select outbox.enqueue('urgent', '{}', priority => 9)"
_WAITING = "select count(*) from outbox.message where topic = $1"
_SESSION = "set local enable_seqscan = off; set local jit = off"
"""As the worker's sessions have it (outbox/postgres/pool.py)."""
GOAL = Goal("≥", 0.90)


@dataclass(frozen=True, slots=True)
class BacklogOptions:
    """The smallest backlog is what the others are compared with, each right before it is measured itself."""

    sizes: tuple[int, ...] = option(
        (10_000, 30_000, 100_000, 300_000, 1_000_000), "Messages that wait when the drain begins.", brief=(1_000, 5_000)
    )
    drained: int = option(10_000, "Messages in a timed drain.", brief=1_000)
    drains: int = option(
        5, "Drains at each size; a run's value is their median. Between them the backlog is topped up.", brief=1
    )
    runs: int = option(3, brief=1)


OPTIONS = BacklogOptions


async def measure(lab: Lab, options: BacklogOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Drain at each size in turn, run after run."""
    dsn = await lab.outbox()
    smallest, *others = sorted(options.sizes)
    turns = list(product(range(options.runs), others or [smallest]))
    async with connected(dsn) as connection:
        for turn, (run, size) in enumerate(turns):
            show(f"run {run + 1}: {size:,} messages wait", turn / len(turns))
            rates = {}
            for waiting in dict.fromkeys((smallest, size)):
                rates[waiting] = await _at_size(dsn, connection, waiting, smallest, options, report)
                _draw(report, sorted(options.sizes))
            if size != smallest:
                ratio = f"drain rate, {size:,} ÷ {smallest:,} waiting"
                report.measured(ratio, "×", rates[size] / rates[smallest], GOAL)
        await empty(connection)


async def _at_size(
    dsn: str, connection: Connection, size: int, smallest: int, options: BacklogOptions, report: Measurements
) -> float:
    """Drain from a backlog of this size, again and again; return the median rate."""
    await empty(connection)
    rates: list[float] = []
    claims_s: list[float] = []
    waited_s: list[float] = []
    for drain in range(options.drains):
        await fill(connection, size - await connection.fetchval(_WAITING, TOPIC))
        await settle_down(connection)
        if drain == 0:
            await _explain(connection, size, report)
        rate, claimed, waited = await _drain(dsn, connection, min(options.drained, smallest))
        rates.append(rate)
        claims_s += claimed
        waited_s += waited
    report.measured(f"drain rate, {size:,} waiting", "rows/s", median(rates))
    report.measured(f"claim, {size:,} waiting", "ms", 1000 * median(claims_s))
    report.sampled(f"claim, {size:,} waiting", ms(claims_s))
    if waited_s:
        report.measured(f"urgent message, {size:,} waiting", "ms", 1000 * median(waited_s))
        report.sampled(f"urgent message, {size:,} waiting", ms(waited_s))
    return median(rates)


async def _drain(dsn: str, connection: Connection, count: int) -> tuple[float, list[float], list[float]]:
    """Drain this many; return rows a second, the seconds of the claims, and the waiting times of urgent messages."""
    watch = Watch()
    waited_s: list[float] = []

    async def hurry() -> None:
        while True:
            message_id = await connection.fetchval(_URGENT)
            committed_s = monotonic()
            await watch.until(partial(watch.delivered_s.__contains__, message_id))
            waited_s.append(max(0.0, watch.delivered_s[message_id] - committed_s))  # seen before the commit's answer

    async with relay_at_work(dsn, watch):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hurry)
            rate = await watch.rate(count)
            tasks.cancel_scope.cancel()
        return rate, [claim.took_s for claim in watch.claims], waited_s


def _draw(report: Measurements, sizes: list[int]) -> None:
    """The curves, updated after each turn."""
    names = {
        "drain rate": "drain rate, {:,} waiting",
        "claim": "claim, {:,} waiting",
        "urgent message": "urgent message, {:,} waiting",
        "buffers of a claim": "buffers of a claim, {:,} waiting",
    }
    figures = {figure.name: figure.value for figure in report.figures}
    for curve, name in names.items():
        report.series[curve] = [(size, figures[name.format(size)]) for size in sizes if name.format(size) in figures]


class _ExplainedError(Exception):
    """Carries a plan out of the store, which would read rows."""

    def __init__(self, plan: dict[str, int]) -> None:
        super().__init__()
        self.plan = plan


class _ExplainingPool:
    """Replaces the store's pool, and explains the statements that the store would run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *arguments: object) -> NoReturn:
        """Run the statement in the open transaction and raise its plan."""
        await self._connection.execute(_SESSION)
        text = await self._connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
        raise _ExplainedError(json.loads(text)[0]["Plan"])


async def _explain(connection: Connection, size: int, report: Measurements) -> None:
    """Count the buffers that one full claim touches; it is rolled back."""
    settings = config.load(database_url="postgresql://")
    store = Store(cast("Pool", _ExplainingPool(connection)), "outbox")
    transaction = connection.transaction()
    await transaction.start()
    try:
        await store.claim(settings.batch, lease_s=settings.lease_s, worker_id=0)
    except _ExplainedError as explained:
        buffers = explained.plan["Shared Hit Blocks"] + explained.plan["Shared Read Blocks"]
        report.measured(f"buffers of a claim, {size:,} waiting", "buffers", buffers)
    finally:
        await transaction.rollback()
    report.settings["claim of"] = settings.batch
