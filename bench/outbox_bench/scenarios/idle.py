"""What an idle worker costs, in each mode: statements, processor time, memory.

The worker is `outbox run` with the sink that it has in production, in a process of its own. It is watched after it has
delivered something, so that its connections are open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from time import monotonic
from typing import TYPE_CHECKING

import anyio
import asyncpg
import psutil

from outbox.model.errors import OutboxError
from outbox_bench.load.in_process import connected, empty
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import worker_process
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

GOALS = {"statements/s": Goal("≤", 0.5), "% of a core": Goal("≤", 1.0), "MiB": Goal("≤", 100.0)}
_JUDGED = {"listen", "auto"}
"""The modes that the goals are for. `poll` runs a statement every second by definition."""
_CALLS = """
select coalesce(sum(calls), 0)::bigint from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())
  and (query like '%outbox.%' or query ilike 'listen%') and query not like '%pg_stat_%'
"""
_TRANSACTIONS = """
select (xact_commit + xact_rollback)::bigint from pg_stat_database where datname = current_database()
"""
_WORK = """
select outbox.start_workflow('Bench', 'outbox-bench-idle-' || gen_random_uuid(), '{}', task_queue => 'outbox-bench',
                             execution_timeout => interval '1 minute')
"""
_LEFT = "select count(*) from outbox.message"
_LOOK_EVERY_S = 0.05
_DELIVERED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class IdleOptions:
    """Durations in seconds."""

    modes: tuple[str, ...] = option(("listen", "poll", "auto"), brief=("listen",))
    sink: str = option("outbox_temporal.sink:temporal_sink")
    settle_s: float = option(
        15.0, "Left out at the beginning: polling slows down for ten seconds after the start.", brief=0.5
    )
    watch_s: float = option(30.0, brief=1.5)
    runs: int = option(1, brief=1)


OPTIONS = IdleOptions


async def measure(lab: Lab, options: IdleOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Watch one worker after the other."""
    dsn = await lab.outbox()
    temporal = {"TEMPORAL_ADDRESS": await lab.temporal()} if options.sink.startswith("outbox_temporal.") else {}
    turns = list(product(range(options.runs), options.modes))
    async with connected(dsn) as connection:
        await empty(connection)
        report.settings["statements counted by"], statements = await _counter(connection, report)
        for turn, (run, mode) in enumerate(turns):
            show(f"run {run + 1}: mode {mode}", turn / len(turns))
            async with worker_process(dsn, environment=temporal, mode=mode, sink=options.sink) as worker:
                await _deliver_one(connection)
                await anyio.sleep(options.settle_s)
                costs = await _watch(connection, statements, psutil.Process(worker.pid), options.watch_s)
            for unit, cost in costs.items():
                goal = GOALS[unit] if mode in _JUDGED else None
                report.measured(f"idle, {mode}: {unit}", unit, cost, goal)


async def _deliver_one(connection: Connection) -> None:
    await connection.execute(_WORK)
    with anyio.move_on_after(_DELIVERED_WITHIN_S):
        while await connection.fetchval(_LEFT):  # noqa: ASYNC110 - the process is not ours to ask
            await anyio.sleep(_LOOK_EVERY_S)
        return
    raise OutboxError(f"the worker delivered nothing within {_DELIVERED_WITHIN_S:g} s: see `outbox status`")


async def _watch(connection: Connection, statements: str, process: psutil.Process, watch_s: float) -> dict[str, float]:
    """What the process cost while we looked away, by unit."""
    counted, worked_s, began_s = await connection.fetchval(statements), _cpu_s(process), monotonic()
    await anyio.sleep(watch_s)
    took_s, worked_s = monotonic() - began_s, _cpu_s(process) - worked_s
    counted = await connection.fetchval(statements) - counted
    own = 1 if statements == _TRANSACTIONS else 0  # our first question is counted by the second
    return {
        "statements/s": max(0, counted - own) / took_s,
        "% of a core": 100 * worked_s / took_s,
        "MiB": process.memory_info().rss / 2**20,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _counter(connection: Connection, report: Measurements) -> tuple[str, str]:
    """How statements are counted here: its name, and the query."""
    try:
        await connection.fetchval(_CALLS)
    except asyncpg.PostgresError:
        report.note(
            "statements are the database's transactions (pg_stat_statements is not available): "
            "each of the worker's is one, and everything else that works in the database counts too",
        )
        return "pg_stat_database", _TRANSACTIONS
    return "pg_stat_statements", _CALLS
