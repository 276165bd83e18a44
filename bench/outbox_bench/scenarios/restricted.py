"""Which messages do waiting messages slow? A hot key beside other keys, and a large tenant beside a small one.

Hot key: messages with keys of their own come at a steady rate. The time runs from when each was due to its delivery,
without and with many waiting messages of one other key. Tenants: how long a small tenant's messages take from
their commit to their last delivery, alone and behind many of another tenant. The sink does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox_bench.load.in_process import TOPIC, Watch, connected, empty, relay_at_work
from outbox_bench.load.lab import Lab
from outbox_bench.report.percentiles import percentile
from outbox_bench.report.report import Goal, Measurements, ms
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

GOAL = Goal("≤", 2.0)
_SMALL = 100
_BEGUN = 200
"""Deliveries of the hot key after which the worker is in its stride."""
_HOT = "select count(outbox.enqueue($2, '{}', key => 'hot')) from generate_series(1, $1)"
_OTHER = "select outbox.enqueue('other', '{}', key => $1)"
_WAITING = "select exists (select from outbox.message where key = 'hot')"
_BIG = "select count(outbox.enqueue($2, '{}', tenant => 'big')) from generate_series(1, $1)"
_FEW = "select count(outbox.enqueue('small', '{}', tenant => 'small')) from generate_series(1, $1)"


@dataclass(frozen=True, slots=True)
class RestrictedOptions:
    """Durations in seconds."""

    waiting: int = option(100_000, "Messages that wait, of the hot key and of the large tenant.", brief=500)
    duration_s: float = option(10.0, "How long messages come beside the hot key.", brief=0.5)
    every_s: float = option(0.02, "Time between two of them.")
    runs: int = option(5, brief=1)


OPTIONS = RestrictedOptions


async def measure(
    lab: Lab, options: RestrictedOptions, report: Measurements, show: Callable[[str, float], None]
) -> None:
    """Measure each alone and beside the others, in turn, run after run."""
    dsn = await lab.outbox()
    async with connected(dsn) as connection:
        for run in range(options.runs):
            show(f"run {run + 1}: a hot key", run / options.runs)
            await _hot_key(dsn, connection, options, report)
            show(f"run {run + 1}: a large tenant", (run + 0.5) / options.runs)
            await _tenants(dsn, connection, options, report)
        await empty(connection)


async def _hot_key(dsn: str, connection: Connection, options: RestrictedOptions, report: Measurements) -> None:
    p99s = []
    for beside, waiting in (("alone", 0), ("beside a hot key", options.waiting)):
        latencies_s = await _latencies_s(dsn, connection, options, waiting, report)
        report.sampled(f"other keys, {beside}", ms(latencies_s))
        p99s.append(percentile(latencies_s, 99))
        report.measured(f"other keys {beside}, p99", "ms", 1000 * p99s[-1])
    report.measured("other keys: beside a hot key ÷ alone, p99", "×", p99s[1] / p99s[0], GOAL)


async def _latencies_s(
    dsn: str, connection: Connection, options: RestrictedOptions, waiting: int, report: Measurements
) -> list[float]:
    """From when each message was due at a steady rate, whether or not the one before is through, to its delivery."""
    await empty(connection)
    await connection.execute(_HOT, waiting, TOPIC)
    watch = Watch()
    due_s = {}
    async with relay_at_work(dsn, watch):
        await watch.until(lambda: watch.completed >= min(waiting, _BEGUN))
        began_s = monotonic()
        for n in range(int(options.duration_s / options.every_s)):
            at_s = began_s + n * options.every_s
            await anyio.sleep(max(0.0, at_s - monotonic()))
            due_s[await connection.fetchval(_OTHER, f"other-{n}")] = at_s
        await watch.until(lambda: len(watch.delivered_s) >= len(due_s))
        if waiting and not await connection.fetchval(_WAITING):
            report.notes.append("the hot key was through before the others were: give it more to wait with")
    return [watch.delivered_s[message_id] - at_s for message_id, at_s in due_s.items()]


async def _tenants(dsn: str, connection: Connection, options: RestrictedOptions, report: Measurements) -> None:
    alone_s = await _small_tenant_s(dsn, connection, 0)
    behind_s = await _small_tenant_s(dsn, connection, options.waiting)
    report.measured(f"a tenant's {_SMALL} messages alone", "ms", 1000 * alone_s)
    report.measured(f"a tenant's {_SMALL} messages behind another's", "ms", 1000 * behind_s)
    report.measured("a small tenant: behind a large one ÷ alone", "×", behind_s / alone_s, GOAL)


async def _small_tenant_s(dsn: str, connection: Connection, waiting: int) -> float:
    """Seconds from the commit of a small tenant's messages to their last delivery."""
    await empty(connection)
    watch = Watch()
    async with relay_at_work(dsn, watch):
        await connection.execute(_BIG, waiting, TOPIC)
        await watch.until(
            lambda: watch.completed >= waiting // 20
        )  # the worker has claimed as far ahead as it ever does
        began_s = monotonic()
        await connection.execute(_FEW, _SMALL)
        await watch.until(lambda: len(watch.delivered_s) >= _SMALL)
    return max(watch.delivered_s.values()) - began_s
