"""What enqueueing costs a business transaction: the same transaction with and without it, in turn.

The plain transaction begins, inserts one row into a table of its own and commits, statement by statement, as
applications do. The others also enqueue: with SQL, with the Python producer over each driver, or by a capture of the
table. Each is repeated over some connections at once for a while, with no worker, and beside one that listens and
delivers to nowhere. A ratio compares the time of a transaction with that of the plain one over the same driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import anyio
import asyncpg

from outbox import producer
from outbox_bench.load.in_process import connected, empty
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import worker_process
from outbox_bench.report.report import Measurements, ms
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

ALONE, LISTENING = "no worker", "a worker listens"
_TABLES = """
drop schema if exists outbox_bench cascade;
create schema outbox_bench;
create table outbox_bench.business (id bigint generated always as identity primary key, at timestamptz, text text);
create table outbox_bench.captured (like outbox_bench.business including all);
select outbox.capture('outbox_bench.captured', topic => $$'bench'$$, name => 'bench')
"""
_GONE = "drop schema if exists outbox_bench cascade"
_TEXT = "x" * 100
_PAYLOAD = f'{{"text": "{_TEXT}"}}'
_MANY = "[" + ",".join([f'{{"topic": "bench", "payload": {_PAYLOAD}}}'] * 100) + "]"
_MESSAGES: list[producer.NewMessage] = [{"topic": "bench", "payload": {"text": _TEXT}}] * 100
_INSERT = "insert into outbox_bench.{} (at, text) values (now(), {})"
_BUSINESS, _CAPTURED = (_INSERT.format(table, "$1") for table in ("business", "captured"))
_SILENT = "set session_replication_role = replica"
"""Triggers do not fire for this session, so nothing notifies. Needs rights that few have."""

Driver = Literal["asyncpg", "psycopg"]
Transaction = Callable[[Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ProducersOptions:
    """A run takes each of nine ways at each number of connections, without and with a worker."""

    connections: tuple[int, ...] = option((1, 4, 16), brief=(1, 2))
    seconds: float = option(1.0, "For each of these, in as many turns as there are laps.", brief=0.05)
    laps: int = option(
        3, "How often all ways are gone through, so that a busy moment of the machine falls on all of them.", brief=1
    )
    runs: int = option(5, brief=1)


OPTIONS = ProducersOptions


@dataclass(frozen=True, slots=True)
class ProducerWay:
    """One way to write a business transaction. `prepare` is run once for each of its connections."""

    name: str
    transaction: Transaction
    driver: Driver = "asyncpg"
    prepare: str | None = None

    @property
    def plain(self) -> str:
        """The way that it is compared with."""
        return "plain" if self.driver == "asyncpg" else "plain, psycopg"


def _with_asyncpg(enqueue: Transaction | None = None, insert: str = _BUSINESS) -> Transaction:
    async def transaction(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute(insert, _TEXT)
            if enqueue is not None:
                await enqueue(connection)

    return transaction


def _with_psycopg(enqueue: Transaction | None = None) -> Transaction:
    insert = _INSERT.format("business", "%s")

    async def transaction(connection: Any) -> None:  # noqa: ANN401 - psycopg may not be installed
        async with connection.transaction():
            await connection.execute(insert, (_TEXT,))
            if enqueue is not None:
                await enqueue(connection)

    return transaction


def _enqueue(connection: Any) -> Awaitable[object]:  # noqa: ANN401 - a connection of any driver
    return producer.enqueue(connection, "bench", {"text": _TEXT})  # type: ignore[no-any-return]


def _enqueue_many(connection: Any) -> Awaitable[object]:  # noqa: ANN401 - an asyncpg connection
    return producer.enqueue_many(connection, _MESSAGES)  # type: ignore[no-any-return]


def _sql(statement: str, argument: str) -> Transaction:
    return lambda connection: connection.fetch(statement, argument)


_ENQUEUE = _sql("select outbox.enqueue('bench', $1)", _PAYLOAD)
WAYS = (
    ProducerWay("plain", _with_asyncpg()),
    ProducerWay("enqueue", _with_asyncpg(_ENQUEUE)),
    ProducerWay("enqueue without NOTIFY", _with_asyncpg(_ENQUEUE), prepare=_SILENT),
    ProducerWay("enqueue_many of 100", _with_asyncpg(_sql("select outbox.enqueue_many($1)", _MANY))),
    ProducerWay("captured table", _with_asyncpg(insert=_CAPTURED)),
    ProducerWay("Python producer", _with_asyncpg(_enqueue)),
    ProducerWay("Python producer, 100", _with_asyncpg(_enqueue_many)),
    ProducerWay("plain, psycopg", _with_psycopg(), "psycopg"),
    ProducerWay("Python producer, psycopg", _with_psycopg(_enqueue), "psycopg"),
)


async def measure(
    lab: Lab, options: ProducersOptions, report: Measurements, show: Callable[[str, float], None]
) -> None:
    """Take every way in turn, at every number of connections, without and with a worker, run after run."""
    dsn = await lab.outbox()
    async with connected(dsn) as admin, _tables(admin):
        ways = await _possible(admin, report)
        turns = list(product(range(options.runs), (ALONE, LISTENING), options.connections))
        for turn, (run, company, connections) in enumerate(turns):
            show(f"run {run + 1}: {connections} connections, {company}", turn / len(turns))
            await _round(dsn, admin, ways, company, connections, options, report)
            _draw(report, ways, options.connections)


async def _round(
    dsn: str,
    admin: Connection,
    ways: list[ProducerWay],
    company: str,
    connections: int,
    options: ProducersOptions,
    report: Measurements,
) -> None:
    """Every way in short turns, and what it costs beside the plain one of this very round."""
    times_s: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        if company == LISTENING:
            worker = await stack.enter_async_context(
                worker_process(dsn, mode="listen", sink="outbox_bench.load.nullsink:null_sink")
            )
            await worker.said("wake-up source subscribed")
        found: dict[str, tuple[list[float], float]] = {way.name: ([], 0.0) for way in ways}
        for _, way in product(range(options.laps), ways):
            await empty(admin)
            taken_s, took_s = await _repeat(dsn, way, connections, options.seconds / options.laps)
            found[way.name] = found[way.name][0] + taken_s, found[way.name][1] + took_s
        where = _where(connections, company)
        for way in ways:
            taken_s, took_s = found[way.name]
            times_s[way.name] = connections * took_s / len(taken_s)
            if way.name == way.plain:
                report.measured(f"{way.name}: {where}", "transactions/s", len(taken_s) / took_s)
            else:
                plain_s = times_s[way.plain]
                report.measured(f"{way.name} ÷ plain: {where}", "×", times_s[way.name] / plain_s)
                if connections == min(options.connections):
                    report.measured(f"{way.name}, added: {where}", "ms", 1000 * (times_s[way.name] - plain_s))
            if connections == min(options.connections):
                report.sampled(f"{way.name}: {where}", ms(taken_s))
    await empty(admin)


def _where(connections: int, company: str) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}, {company}"


async def _repeat(dsn: str, way: ProducerWay, connections: int, seconds: float) -> tuple[list[float], float]:
    """Repeat the transaction on this many connections; return the seconds of each, and of all together."""
    taken_s: list[float] = []
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(_connection(dsn, way)) for _ in range(connections)]
        for connection in opened:  # statements are prepared, caches are warm
            await way.transaction(connection)

        async def produce(connection: Any) -> None:  # noqa: ANN401 - a connection of either driver
            sent_s = perf_counter()
            while True:
                await way.transaction(connection)
                taken_s.append((now_s := perf_counter()) - sent_s)
                if now_s >= end_s:
                    return
                sent_s = now_s

        began_s = perf_counter()
        end_s = began_s + seconds
        async with anyio.create_task_group() as tasks:
            for connection in opened:
                tasks.start_soon(produce, connection)
        return taken_s, perf_counter() - began_s


@asynccontextmanager
async def _connection(dsn: str, way: ProducerWay) -> AsyncIterator[Any]:
    if way.driver == "asyncpg":
        async with connected(dsn) as connection:
            if way.prepare:
                await connection.execute(way.prepare)
            yield connection
    else:
        import psycopg  # noqa: PLC0415 - only who has it is measured with it

        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            yield connection


@asynccontextmanager
async def _tables(admin: Connection) -> AsyncIterator[None]:
    """Our business tables, for the block."""
    await admin.execute(_TABLES)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await empty(admin)
            await admin.execute("select outbox.uncapture('outbox_bench.captured', 'bench')")
            await admin.execute(_GONE)


async def _possible(admin: Connection, report: Measurements) -> list[ProducerWay]:
    """The ways that can be taken here."""
    ways = list(WAYS)
    if find_spec("psycopg") is None:
        ways = [way for way in ways if way.driver != "psycopg"]
        report.note("psycopg is not installed: the Python producer was measured over asyncpg only")
    try:
        await admin.execute(f"begin; {_SILENT.replace('set', 'set local')}; rollback")
    except asyncpg.InsufficientPrivilegeError:
        await admin.execute("rollback")
        ways = [way for way in ways if way.prepare != _SILENT]
        report.note("enqueue without NOTIFY needs the right to set session_replication_role: not measured")
    return ways


def _draw(report: Measurements, ways: list[ProducerWay], connections: tuple[int, ...]) -> None:
    """Each way's ratio over the number of connections, updated after each round."""
    found = {figure.name: median(figure.runs) for figure in report.figures}
    for way, company in product(ways, (ALONE, LISTENING)):
        names = {number: f"{way.name} ÷ plain: {_where(number, company)}" for number in connections}
        if points := [(float(number), found[name]) for number, name in names.items() if name in found]:
            report.series[f"{way.name} ÷ plain, {company}"] = points
