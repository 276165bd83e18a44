"""The cost of another session's snapshot that keeps the dead rows of the outbox alive.

A session opens a repeatable-read transaction, looks once and idles, as a forgotten console or a long report does. From
then on vacuum can remove nothing that is newer. Rounds of messages are committed and drained by one worker; the same
without such a transaction is measured in turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from outbox_bench.load.in_process import Watch, connected, empty, fill, relay_at_work, settle_down
from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

FREE, HELD = "xmin free", "xmin held"
GOAL = Goal("≥", 0.80)
_HOLD = "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read"
_HELD = "select backend_xmin is not null from pg_stat_activity where pid = $1"
_DEAD = "select n_dead_tup from pg_stat_user_tables where relid = 'outbox.message'::regclass"
_SIZE = "select pg_relation_size('outbox.message') + pg_indexes_size('outbox.message')"


@dataclass(frozen=True, slots=True)
class HeldXminOptions:
    """`rounds` × `messages` flow while the snapshot is held."""

    rounds: int = option(15, brief=2)
    messages: int = option(10_000, "Committed at once in each round, and drained before the next.", brief=500)
    runs: int = option(5, brief=1)


OPTIONS = HeldXminOptions


@asynccontextmanager
async def held_xmin(dsn: str, observer: Connection, report: Measurements) -> AsyncIterator[None]:
    """An idle transaction with a snapshot, for the block."""
    async with connected(dsn, "outbox bench snapshot") as holder:
        await holder.execute(_HOLD)
        await holder.fetchval("select count(*) from outbox.message")
        if not await observer.fetchval(_HELD, holder.get_server_pid()):
            report.note("the session that should hold a snapshot holds none, or may not be seen")
        yield
        await holder.execute("rollback")


async def measure(lab: Lab, options: HeldXminOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Run both ways in turn, the one that begins changing from run to run."""
    dsn = await lab.outbox()
    curves: dict[str, list[list[float]]] = {FREE: [], HELD: []}
    for run in range(options.runs):
        for turn, way in enumerate((FREE, HELD) if run % 2 == 0 else (HELD, FREE)):
            done = (run + turn / 2) / options.runs

            def progress(share: float, done: float = done, what: str = f"run {run + 1}: {way}") -> None:
                show(what, done + share / 2 / options.runs)

            curves[way].append([])
            await _flow(dsn, options, way, report, curves[way][-1], progress)
            _draw(report, curves, options)
        free, held = curves[FREE][-1], curves[HELD][-1]
        # Equal numbers of messages: the whole run's rate is the harmonic mean of its rounds'.
        report.measured("drain rate, xmin held ÷ not", "×", _whole(held) / _whole(free), GOAL)
        report.measured("drain rate at the end, xmin held ÷ not", "×", _end(held) / _end(free))


async def _flow(
    dsn: str,
    options: HeldXminOptions,
    way: str,
    report: Measurements,
    rates: list[float],
    progress: Callable[[float], None],
) -> None:
    """Send the rounds through one worker, and note each round's rate."""
    watch = Watch()
    async with connected(dsn) as connection:
        await empty(connection)
        await settle_down(connection)
        async with connected(dsn) as observer, relay_at_work(dsn, watch):
            if way == FREE:
                await _rounds(connection, watch, options, rates, progress)
            else:
                async with held_xmin(dsn, observer, report):
                    await _rounds(connection, watch, options, rates, progress)
        report.measured(f"drain rate, {way}", "rows/s", _whole(rates))
        report.measured(f"dead rows at the end, {way}", "rows", await connection.fetchval(_DEAD))
        report.measured(f"hot table and its indexes at the end, {way}", "MiB", await connection.fetchval(_SIZE) / 2**20)
        await empty(connection)


async def _rounds(
    connection: Connection,
    watch: Watch,
    options: HeldXminOptions,
    rates: list[float],
    progress: Callable[[float], None],
) -> None:
    for number in range(options.rounds):
        progress(number / options.rounds)
        watch.restart()
        await fill(connection, options.messages)
        rates.append(await watch.rate(options.messages))


def _whole(rates: list[float]) -> float:
    return 1 / mean(1 / rate for rate in rates)


def _end(rates: list[float]) -> float:
    """The rate of the last fifth."""
    return _whole(rates[-max(1, len(rates) // 5) :])


def _draw(report: Measurements, curves: dict[str, list[list[float]]], options: HeldXminOptions) -> None:
    """Drain rate over the messages that had flowed by then, the mean of the runs."""
    for way, runs in curves.items():
        if runs:
            points = [mean(rates) for rates in zip(*runs, strict=True)]
            report.series[f"drain rate, {way}"] = [
                ((number + 1) * options.messages, rate) for number, rate in enumerate(points)
            ]
