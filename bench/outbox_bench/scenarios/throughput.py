"""How fast one worker is through a backlog: with a sink that does nothing, and to Temporal beside a direct loop.

The worker is a process of its own, and so is each loop that starts workflows without the outbox: `raw` calls the
service as the sink does, `client` is the SDK's start_workflow. They take turns in every run, so that what the machine
does besides falls on all of them; figures with a goal are ratios within a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psutil

from outbox.model.errors import ConfigurationError
from outbox_bench.load.costs import Counters, Processor, postgres_process
from outbox_bench.load.direct import TASK_QUEUE, TEXT, WORKFLOW
from outbox_bench.load.in_process import TOPIC, connected, empty, settle_down
from outbox_bench.load.lab import Lab
from outbox_bench.load.mover_group import Move, move, movers
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.scenarios.options import option
from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.postgres import running

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

NULL_SINK, TEMPORAL_SINK = "outbox_bench.load.nullsink:null_sink", "outbox_temporal.sink:temporal_sink"
GOALS = {"null": Goal("≥", 45_000), "stub": Goal("≥", 0.90), "temporal": Goal("≥", 0.95)}
RESTRICTED_GOAL = Goal("≥", 0.50)
_FILL = """
select count(*)
from (
    select json_agg(json_build_object(
        'topic', $2::text, 'payload', json_build_object('text', $3::text),
        'key', 'key-' || i % nullif($4::int, 0), 'tenant', 'tenant-' || i % nullif($5::int, 0),
        'target', json_build_object(
            'operation', 'start_workflow', 'workflow', $6::text, 'workflow_id', 'bench-' || gen_random_uuid(),
            'arguments', 'one', 'task_queue', $7::text))) as m
    from generate_series(1, $1::int) i
    group by i / 10000
) batch, lateral outbox.enqueue_many(batch.m)
"""


@dataclass(frozen=True, slots=True)
class ThroughputOptions:
    """What is measured."""

    sinks: tuple[str, ...] = option(
        ("null", "stub", "temporal"),
        "Where messages go: null (nowhere), stub (a stand-in for Temporal's frontend), temporal (the real one).",
    )
    rows: int = option(60_000, "Messages of one run into nowhere.", brief=2_000)
    stub_rows: int = option(10_000, "Starts of one run on the stub.", brief=400)
    temporal_rows: int = option(500, "Starts of one run on the real Temporal, which they stay in.", brief=30)
    runs: int = option(5, brief=1)
    concurrency: int = option(64, "Deliveries, or calls of a loop, at once.")
    keys: int = option(
        10_000, "Measure messages that are spread over this many keys, in turn with messages without.", brief=200
    )
    tenants: int = option(0, "The same for tenants.")
    stub_latency_ms: float = option(0.0, "What the stub takes for an answer, at least.")
    stub_jitter_ms: float = option(0.0, "Median of the stub's random latency on top, which is lognormal.")


OPTIONS = ThroughputOptions


ShowProgress = Callable[[str, float], None]


async def measure(lab: Lab, options: ThroughputOptions, report: Measurements, show: ShowProgress) -> None:
    """Measure sink after sink, run after run."""
    scenarios = {"null": _null, "stub": _stub, "temporal": _temporal}
    if unknown := [sink for sink in options.sinks if sink not in scenarios]:
        raise ConfigurationError(f"--sinks: there is no {unknown[0]!r}: use {', '.join(scenarios)}")
    dsn = await lab.outbox()
    report.settings["payload bytes"] = len(TEXT) + 13
    async with connected(dsn) as connection:
        bench = Bench(lab, dsn, connection, await postgres_process(connection), options, report)
        if bench.postgres is None:
            report.note("PostgreSQL runs elsewhere: its processor time is not measured")
        for place, sink in enumerate(options.sinks):
            await scenarios[sink](bench, partial(_within, show, place, len(options.sinks)))
        await empty(connection)


def _within(show: ShowProgress, place: int, places: int, what: str, share: float) -> None:
    """Report the progress of one part of several."""
    show(what, (place + share) / places)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs."""

    lab: Lab
    dsn: str
    connection: Connection
    postgres: psutil.Process | None
    options: ThroughputOptions
    report: Measurements

    def figure(self, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Add one run's value."""
        self.report.measured(name, unit, value, goal)

    async def relay(
        self, label: str, rows: int, *, keys: int = 0, tenants: int = 0, address: str = "", goal: Goal | None = None
    ) -> float:
        """Drain a fresh backlog with one worker, to Temporal's address or to nowhere; return messages a second."""
        await prepare(self.connection, rows, keys=keys, tenants=tenants)
        environment = relay_environment(self.dsn, address, self.options.concurrency)
        before = await Counters.read(self.connection)
        async with movers(1, ["relay"], environment) as started:
            postgres = Processor(self.postgres)
            moved = await move(started, rows, postgres.stop)
        spent = await Counters.read(self.connection) - before
        self.figure(f"relay, {label}", "messages/s" if label.startswith("null") else "starts/s", moved.rate, goal)
        self.figure(f"worker's CPU, {label}", "µs/message", moved.cpu_us)
        if self.postgres is not None:
            self.figure(f"PostgreSQL's CPU, {label}", "µs/message", 1e6 * postgres.spent_s / rows)
        self.figure(f"WAL, {label}", "B/message", spent.wal_bytes / rows)
        self.figure(f"buffers, {label}", "pages/message", spent.buffers / rows)
        self.figure(f"transactions, {label}", "per 1,000 messages", 1000 * spent.transactions / rows)
        [account] = moved.accounts
        self.figure(f"claims, {label}", "per 1,000 messages", 1000 * account.claims / rows)
        self.figure(f"settlements, {label}", "per 1,000 messages", 1000 * account.settlements / rows)
        self._note_retries(moved, label)
        return moved.rate

    async def loop(self, kind: str, count: int, *, address: str, where: str) -> float:
        """Start this many workflows without the outbox; return starts a second."""
        what = [kind, str(count), str(self.options.concurrency)]
        async with movers(1, what, {"TEMPORAL_ADDRESS": address}) as started:
            moved = await move(started, count)
        self.figure(f"{kind} loop, {where}", "starts/s", moved.rate)
        self.figure(f"{kind} loop's CPU, {where}", "µs/start", moved.cpu_us)
        return moved.rate

    def _note_retries(self, moved: Move, label: str) -> None:
        """A figure that includes second attempts is another figure."""
        returned = sum(account.returned for account in moved.accounts)
        if returned:
            self.report.note(f"{label}: {returned} messages of a run were not delivered at the first attempt")


async def _null(bench: Bench, show: ShowProgress) -> None:
    options = bench.options
    for run in range(options.runs):
        show(f"null sink, run {run + 1}", run / options.runs)
        rate = await bench.relay("null sink", options.rows, goal=GOALS["null"])
        if options.keys or options.tenants:
            label = f"null sink, {options.keys:,} keys, {options.tenants:,} tenants"
            restricted = await bench.relay(label, options.rows, keys=options.keys, tenants=options.tenants)
            bench.figure("restricted ÷ plain, null sink", "×", restricted / rate, goal=RESTRICTED_GOAL)


async def _stub(bench: Bench, show: ShowProgress) -> None:
    options, report = bench.options, bench.report
    frontend = FrontendOptions(latency_ms=options.stub_latency_ms, jitter_ms=options.stub_jitter_ms)
    latency = f"{frontend.latency_ms:g} ms and a lognormal median of {frontend.jitter_ms:g} ms on top"
    report.settings["stub"] = " ".join(frontend.arguments())
    report.note(
        "stub: outbox_bench.temporal_stub.frontend in a process of its own, which executes nothing; "
        f"it answers after {latency}",
    )
    async with running(partial(StubFrontend.start, frontend)) as stub:
        assert stub.pid is not None
        process = psutil.Process(stub.pid)
        for run in range(options.runs):
            processor = Processor(process)
            await _beside_loops(bench, run, show, rows=options.stub_rows, address=stub.address, where="stub")
            processor.stop()
            bench.figure("stub's CPU", "µs/start", 1e6 * processor.spent_s / (3 * options.stub_rows))


async def _temporal(bench: Bench, show: ShowProgress) -> None:
    options, report = bench.options, bench.report
    address = await bench.lab.temporal()
    own = "Temporal dev server" in bench.lab.embedded
    report.settings["temporal"] = "dev server" if own else address
    if own:
        report.note("temporal: the CLI's dev server in memory, which has one history shard")
    for run in range(options.runs):
        await _beside_loops(bench, run, show, rows=options.temporal_rows, address=address, where="temporal")


async def _beside_loops(bench: Bench, run: int, show: ShowProgress, *, rows: int, address: str, where: str) -> None:
    """The relay and both loops once each, in an order that changes from run to run."""
    turns = ["relay", "raw", "client"]
    turns = turns[run % 3 :] + turns[: run % 3]
    rates = {}
    for place, turn in enumerate(turns):
        show(f"{where}, run {run + 1}: {turn}", (run + place / 3) / bench.options.runs)
        if turn == "relay":
            rates[turn] = await bench.relay(where, rows, address=address)
        else:
            rates[turn] = await bench.loop(turn, rows, address=address, where=where)
    judged = "raw" if where == "stub" else "client"
    for kind in ("raw", "client"):
        goal = GOALS[where] if kind == judged else None
        bench.figure(f"relay ÷ {kind} loop, {where}", "×", rates["relay"] / rates[kind], goal)


def relay_environment(dsn: str, address: str, concurrency: int) -> dict[str, str]:
    """The environment of our worker: Temporal's address, or else no sink. All other settings are the defaults."""
    environment = {"DATABASE_URL": dsn, "OUTBOX_SCHEMA": "outbox", "OUTBOX_CONCURRENCY": str(concurrency)}
    if not address:
        return environment | {"OUTBOX_SINK": NULL_SINK}
    return environment | {"OUTBOX_SINK": TEMPORAL_SINK, "TEMPORAL_ADDRESS": address}


async def prepare(connection: Connection, rows: int, *, keys: int = 0, tenants: int = 0) -> None:
    """Leave exactly this many messages behind, pending, spread over these numbers of keys and tenants; 0: none."""
    await empty(connection)
    await connection.execute(_FILL, rows, TOPIC, TEXT, keys, tenants, WORKFLOW, TASK_QUEUE)
    await settle_down(connection)
