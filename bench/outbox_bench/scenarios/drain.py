"""How a worker under load ends after SIGTERM.

Events come at a steady rate, and go on while the worker drains and after it has gone; then another one takes what is
left. Every event must have its one workflow in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

import anyio
from temporalio.client import Client

from outbox_bench.load.flow import NONE, FlowRecord, count, frontend, ledger, steady_flow
from outbox_bench.load.in_process import connected
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import worker_process
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

GOAL = Goal("≤", 10.0)


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """Durations in seconds."""

    rate: float = option(200.0, "Events a second.", brief=50.0)
    work_s: float = option(
        5.0, "Seconds of work before the worker has to end; up to a second longer, at random.", brief=0.5
    )
    runs: int = option(10, brief=1)


OPTIONS = DrainOptions


async def measure(lab: Lab, options: DrainOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Drain one worker after the other."""
    dsn = await lab.outbox()
    async with frontend(report) as stub, connected(dsn) as connection:
        client = await Client.connect(stub.address)
        for run in range(options.runs):
            show(f"run {run + 1} of {options.runs}", run / options.runs)
            code, took_s, found = await _drain(dsn, stub.address, connection, client, options)
            judge(report, code, took_s, found)


def judge(report: Measurements, code: int, took_s: float, found: FlowRecord) -> None:
    """Add one run's figures: the exit code, the seconds from SIGTERM to the end, and what became of the events."""
    report.measured("SIGTERM to the process's end", "s", took_s, GOAL)
    report.longest("SIGTERM to the process's end, longest", "s", took_s, GOAL)
    report.total("exits other than 0", "exits", float(code != 0), NONE)
    found.judge(report)


async def _drain(
    dsn: str, address: str, connection: Connection, client: Client, options: DrainOptions
) -> tuple[int, float, FlowRecord]:
    environment = {"TEMPORAL_ADDRESS": address}
    before = await count(client)
    async with worker_process(dsn, environment=environment) as worker:
        async with steady_flow(dsn, options.rate) as flow:
            await anyio.sleep(options.work_s + random.random())  # noqa: S311 - no secret
            signalled_s = monotonic()
            code = await worker.terminate()
            took_s = monotonic() - signalled_s
        async with worker_process(dsn, environment=environment):
            return code, took_s, await ledger(connection, client, flow, before)
