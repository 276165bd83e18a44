"""How soon a worker is ready: from its process's start, and when it waited for servers that came later.

The worker is `outbox run` with the sink that it has in production. It is ready when `/readyz` says so, which is polled
without a pause. Servers that come later are behind doors that refuse connections. Both doors open in the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

import anyio

from outbox_bench.load.gate_proxy import door
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import worker_process
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.scenarios.options import option

GOAL = Goal("≤", 1.5)
SERVERS_FIRST = "servers there: worker's start to ready"
WORKER_FIRST = "worker there: servers' start to ready"
_WAITING = "database lost, trying again"


@dataclass(frozen=True, slots=True)
class ReadyOptions:
    """Durations in seconds."""

    runs: int = option(10, brief=1)
    away_s: float = option(
        8.0, "How long the worker waits for its servers, at least; up to a second longer, at random.", brief=0.2
    )


OPTIONS = ReadyOptions


async def measure(lab: Lab, options: ReadyOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Start one worker after the other, in turn before and after its servers."""
    dsn, temporal = await lab.outbox(), await lab.temporal()
    parts = urlsplit(dsn)
    if parts.hostname is None:
        report.note("servers that come later are not measured: the database's URL names no host")
    for run in range(options.runs):
        show(f"run {run + 1} of {options.runs}: servers first", run / options.runs)
        _add(report, SERVERS_FIRST, await _servers_first(dsn, temporal))
        if parts.hostname is not None:
            show(f"run {run + 1} of {options.runs}: worker first", (run + 0.3) / options.runs)
            database = f"{parts.hostname}:{parts.port or 5432}"
            _add(report, WORKER_FIRST, await _worker_first(dsn, database, temporal, options.away_s))


def _add(report: Measurements, name: str, took_s: float) -> None:
    report.measured(name, "s", took_s, GOAL)
    report.longest(f"{name}, longest", "s", took_s, GOAL)


async def _servers_first(dsn: str, temporal: str) -> float:
    """Seconds from the process's start until the worker is ready."""
    async with worker_process(dsn, environment={"TEMPORAL_ADDRESS": temporal}, wait=False, probed=True) as worker:
        return await worker.ready() - worker.began_s


async def _worker_first(dsn: str, database: str, temporal: str, away_s: float) -> float:
    """Seconds from the moment in which both servers let connections in until the worker is ready."""
    async with door(database) as before_database, door(temporal) as before_temporal:
        environment = {"TEMPORAL_ADDRESS": before_temporal.address}
        async with worker_process(before_database.url(dsn), environment=environment, wait=False, probed=True) as worker:
            await worker.said(_WAITING)
            await anyio.sleep(away_s + random.random())  # noqa: S311 - no secret
            opened_s = monotonic()
            await before_database.open()
            await before_temporal.open()
            return await worker.ready() - opened_s
