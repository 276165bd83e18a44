"""What a rolling update costs: every worker replaced by a new one, in turn, while events come at a steady rate.

A new worker is started. Once `/readyz` says that it is ready, an old one gets SIGTERM. When that has ended, the next
new one is started, as Kubernetes does with one extra pod. Latency is from the moment in which an event was due to the
beginning of its workflow. It is taken for the events due during the update and for those due before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import anyio
from temporalio.client import Client

from outbox_bench.load.flow import NONE, FlowRecord, count, frontend, ledger, steady_flow
from outbox_bench.load.in_process import connected
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import WorkerProcess, worker_process
from outbox_bench.report.percentiles import percentile
from outbox_bench.report.report import Goal, Measurements, ms
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

GOAL = Goal("≤", 2.0)
_OVERLOADED_S = 0.5


@dataclass(frozen=True, slots=True)
class RollingOptions:
    """Durations in seconds."""

    workers: int = option(3, "How many there are, each of which is replaced.", brief=2)
    rate: float = option(200.0, "Events a second.", brief=50.0)
    before_s: float = option(20.0, "How long is measured before the update.", brief=1.0)
    warm_up_s: float = option(3.0, "What is left out at the beginning.", brief=0.2)
    runs: int = option(5, brief=1)


OPTIONS = RollingOptions


class Update(NamedTuple):
    """One rolling update."""

    begin_s: float
    """When what is measured before it begins, in monotonic seconds."""
    steps_s: list[float]
    """When the first new worker was started, and when each old one was gone."""
    codes: list[int]
    """The old ones' exit codes."""


async def measure(lab: Lab, options: RollingOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Roll one update after the other."""
    dsn = await lab.outbox()
    async with frontend(report) as stub, connected(dsn) as connection:
        client = await Client.connect(stub.address)
        for run in range(options.runs):
            show(f"run {run + 1} of {options.runs}", run / options.runs)
            update, found = await _update(dsn, stub.address, connection, client, options)
            judge(report, update, found)


def judge(report: Measurements, update: Update, found: FlowRecord) -> None:
    """Add one run's figures, and the run's curve in the place of the last one's."""
    begin_s, end_s = update.steps_s[0], update.steps_s[-1]
    before_s, during_s = found.latencies_s(update.begin_s, begin_s), found.latencies_s(begin_s, end_s)
    p99_before_s, p99_during_s = percentile(before_s, 99), percentile(during_s, 99)
    report.measured("event → start, p99: during ÷ before", "×", p99_during_s / p99_before_s, GOAL)
    report.measured("event → start, p99 before", "ms", 1000 * p99_before_s)
    report.measured("event → start, p99 during", "ms", 1000 * p99_during_s)
    found.judge(report)
    report.total("exits other than 0", "exits", float(sum(code != 0 for code in update.codes)), NONE)
    if p99_before_s > _OVERLOADED_S:
        report.note("overloaded: this machine did not keep up with the events even before the update")
    for began_s, ended_s in pairwise(update.steps_s):
        report.measured("one worker replaced in", "s", ended_s - began_s)
    report.sampled("event → start, before", ms(before_s))
    report.sampled("event → start, during", ms(during_s))
    report.series = {
        name: [(second, 1000 * percentile(values_s, percent)) for second, values_s in _by_second(found, begin_s, end_s)]
        for name, percent in (("p50", 50.0), ("p99", 99.0))
    }


def _by_second(found: FlowRecord, begin_s: float, end_s: float) -> list[tuple[float, list[float]]]:
    """Latencies of each second, counted from the update's beginning, ten before it and ten after it at most."""
    seconds = range(-10, floor(end_s - begin_s) + 10)
    by_second = [(float(second), found.latencies_s(begin_s + second, begin_s + second + 1)) for second in seconds]
    return [(second, values_s) for second, values_s in by_second if values_s]


async def _update(
    dsn: str, address: str, connection: Connection, client: Client, options: RollingOptions
) -> tuple[Update, FlowRecord]:
    before = await count(client)
    async with AsyncExitStack() as stack:

        async def new() -> WorkerProcess:
            worker = await stack.enter_async_context(
                worker_process(dsn, environment={"TEMPORAL_ADDRESS": address}, wait=False, probed=True)
            )
            await worker.ready()
            return worker

        old = [await new() for _ in range(options.workers)]
        flow = await stack.enter_async_context(steady_flow(dsn, options.rate))
        await anyio.sleep(options.warm_up_s)
        begin_s = monotonic()
        await anyio.sleep(options.before_s)
        steps_s, codes = [monotonic()], list[int]()
        for worker in old:
            await new()
            codes.append(await worker.terminate())
            steps_s.append(monotonic())
        await anyio.sleep(options.warm_up_s)
        await flow.end()
        return Update(begin_s, steps_s, codes), await ledger(connection, client, flow, before)
