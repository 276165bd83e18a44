"""What several workers do together: one backlog drained by 1, 2, … processes, into nowhere and to a stub of Temporal.

All of them, PostgreSQL and the stub share this machine, so more workers than spare processors cannot be faster.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product

from outbox.model.errors import ConfigurationError
from outbox_bench.load.in_process import connected, empty
from outbox_bench.load.lab import Lab
from outbox_bench.load.mover_group import move, movers
from outbox_bench.report.report import Measurements
from outbox_bench.scenarios.options import option
from outbox_bench.scenarios.throughput import prepare, relay_environment
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.postgres import running


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """What is measured."""

    workers: tuple[int, ...] = option((1, 2, 4), "How many processes, each in turn.", brief=(1, 2))
    sinks: tuple[str, ...] = option(
        ("null", "stub"),
        "Where messages go: null (nowhere), stub (a stand-in for Temporal's frontend).",
        brief=("null",),
    )
    rows: int = option(60_000, "Messages of one run into nowhere.", brief=4_000)
    stub_rows: int = option(10_000, "Starts of one run on the stub.", brief=500)
    runs: int = option(3, brief=1)
    concurrency: int = option(64, "Deliveries at once in each worker.")


OPTIONS = ScaleOptions


async def measure(lab: Lab, options: ScaleOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Drain with each number of workers in turn, run after run."""
    if unknown := [sink for sink in options.sinks if sink not in ("null", "stub")]:
        raise ConfigurationError(f"--sinks: there is no {unknown[0]!r}: use null, stub")
    dsn = await lab.outbox()
    report.settings["processors"] = os.cpu_count()
    turns = list(product(options.sinks, range(options.runs), options.workers))
    fewest = min(options.workers)
    rates: dict[str, list[float]] = {}
    async with connected(dsn) as connection, _addresses(options, report) as addresses:
        for turn, (sink, run, number) in enumerate(turns):
            show(f"{sink}, run {run + 1}: {number} workers", turn / len(turns))
            rows = options.rows if sink == "null" else options.stub_rows
            await prepare(connection, rows)
            environment = relay_environment(dsn, addresses[sink], options.concurrency)
            async with movers(number, ["relay"], environment) as started:
                moved = await move(started, rows)
            curve = f"{sink} sink"
            report.measured(f"{curve}, {_workers(number)}", "messages/s", moved.rate)
            rates.setdefault(_workers(number) + sink, []).append(moved.rate)
            if number != fewest and (alone := rates.get(_workers(fewest) + sink)):
                report.measured(f"{curve}, {_workers(number)} ÷ {_workers(fewest)}", "×", moved.rate / alone[-1])
            _draw(report, curve, options.workers)
        await empty(connection)


@asynccontextmanager
async def _addresses(options: ScaleOptions, report: Measurements) -> AsyncIterator[dict[str, str]]:
    """Temporal's address by sink."""
    if "stub" not in options.sinks:
        yield {"null": ""}
        return
    async with running(partial(StubFrontend.start)) as stub:
        report.settings["stub"] = " ".join(stub.options.arguments())
        report.note(
            "stub: outbox_bench.temporal_stub.frontend in a process of its own, which executes nothing and answers "
            "at once",
        )
        yield {"null": "", "stub": stub.address}


def _draw(report: Measurements, curve: str, workers: tuple[int, ...]) -> None:
    """The curve of the medians so far."""
    medians = {figure.name: figure.value for figure in report.figures}
    points = [(float(n), medians.get(f"{curve}, {_workers(n)}")) for n in sorted(workers)]
    report.series[curve] = [(n, rate) for n, rate in points if rate is not None]


def _workers(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"
