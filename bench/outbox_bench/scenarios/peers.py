"""Our relay beside other queues, in one run on the same PostgreSQL.

No-op throughput: a backlog is drained; the time runs from the first job's beginning until none is left unfinished.
Pick-up: an idle queue gets one job at a time; the time runs from just before its enqueue to its beginning. It includes
the enqueue and its commit, because a quick worker begins before the producer has seen the answer to its commit. The
samples `commit → begin` show that side, and may be negative. The third comparison is with what one would build instead:
PgQueuer with a handler that starts a workflow, on the same Temporal.

Each contender is tuned as its documentation advises (`outbox_bench.peers`). It works in one process and in a database
of its own; a second process feeds it through its own API. They take turns in every run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import asyncpg

from outbox_bench.load.lab import Lab
from outbox_bench.peers.cache import Cache, NotInstalled
from outbox_bench.peers.process import ContenderFailed
from outbox_bench.peers.race import PATIENCE_S, Entrant, RaceServers, Trial
from outbox_bench.report.report import Figure, Goal, Measurements
from outbox_bench.scenarios.options import option

ShowProgress = Callable[[str, float], None]

OURS = Entrant("temporal-outbox", "ours.py")
PEERS = (
    Entrant("Graphile Worker", "graphile.mjs"),
    Entrant("pg-boss", "pgboss.mjs"),
    Entrant("PgQueuer", "on_pgqueuer.py"),
    Entrant("Procrastinate", "on_procrastinate.py"),
)
OUR_STARTS = Entrant("temporal-outbox", "ours.py", starts_workflows=True)
THEIR_STARTS = Entrant("PgQueuer", "on_pgqueuer.py", starts_workflows=True)
GOALS = {"no-op throughput": Goal("≥", 3.0), "pick-up p50": Goal("≤", 0.5)}
"""Of our value divided by the best peer's in the same run."""


@dataclass(frozen=True, slots=True)
class PeersOptions:
    """How much is measured."""

    jobs: int = option(20_000, "The backlog that each contender drains in each run.", brief=300)
    drain_limit_s: float = option(
        8.0, "A contender that has not drained it by then is rated by how far it came.", brief=3
    )
    pickups: int = option(100, "Jobs that each contender picks up from idle in each run.", brief=5)
    starts: int = option(200, "The backlog of workflow starts in each run; 0 leaves Temporal out.", brief=10)
    runs: int = option(5, brief=1)
    only: tuple[str, ...] = option((), "Names of the peers to take; none means all.")
    cache: Path = option(Path(".bench"), "Where the peers are installed on first use.")
    installed: bool = option(
        default=False, text="Take only the peers that are installed there already, and install none.", brief=True
    )


OPTIONS = PeersOptions


async def measure(lab: Lab, options: PeersOptions, report: Measurements, show: ShowProgress) -> None:
    """Fill the report in place. The server must allow to create databases; they are dropped at the end."""
    wanted = [peer for peer in PEERS if not options.only or peer.name in options.only]
    show("installing the peers", 0.0)
    cache = Cache(options.cache.absolute())
    peers, node = await (there if options.installed else installed)(cache, wanted, report)
    starters = [OUR_STARTS] if options.starts else []
    if options.starts and any(peer.name == THEIR_STARTS.name for peer in peers):
        starters.append(THEIR_STARTS)
    address = await lab.temporal() if starters else None
    ground = RaceServers(await lab.database(), cache, node, address)
    comparison = Comparison(ground, options, report)
    async with AsyncExitStack() as stack:
        for entrant in (OURS, *peers, *starters):
            await stack.enter_async_context(ground.database(entrant))
        legs = [(comparison.drain, [OURS, *peers]), (comparison.pick_up, [OURS, *peers])]
        legs += [(comparison.drain, starters), (comparison.pick_up, starters)]
        for run in range(options.runs):
            for number, (leg, entrants) in enumerate(legs):
                for entrant in _turned(entrants, run):
                    show(f"run {run + 1}: {entrant.name}", (run * len(legs) + number) / (options.runs * len(legs)))
                    await comparison.attempt(leg, entrant)
            comparison.relate()


def _turned(entrants: list[Entrant], run: int) -> list[Entrant]:
    """The same in turn, with another one first in each run."""
    first = run % len(entrants) if entrants else 0
    return entrants[first:] + entrants[:first]


async def installed(cache: Cache, wanted: list[Entrant], report: Measurements) -> tuple[list[Entrant], Path | None]:
    """Install what is wanted; return who can run, and the Node that runs some of them. The report says who cannot."""
    try:
        return wanted, await cache.install(node=any(peer.language == "node" for peer in wanted))
    except NotInstalled as error:
        there = [peer for peer in wanted if peer.language == "python" and cache.has_python]
        missing = ", ".join(peer.name for peer in wanted if peer not in there)
        report.notes.append(f"not run: {missing}. They could not be installed: {error}")
        return there, None


async def there(cache: Cache, wanted: list[Entrant], report: Measurements) -> tuple[list[Entrant], Path | None]:
    """The same of those that are installed already; nothing is fetched over the network."""
    has = {"python": cache.has_python, "node": cache.has_node}
    found = [peer for peer in wanted if has[peer.language]]
    if missing := ", ".join(peer.name for peer in wanted if peer not in found):
        report.notes.append(f"not run: {missing}. They are not installed, and nothing was to be: make bench-peers")
    await cache.copy_sources()
    return found, await cache.install_node() if any(peer.language == "node" for peer in found) else None


@dataclass(slots=True)
class Comparison:
    """Measures one entrant after the other, and keeps what it found in the report."""

    ground: RaceServers
    options: PeersOptions
    report: Measurements
    _out: set[Entrant] = field(default_factory=set)
    _figures: dict[str, Figure] = field(default_factory=dict)
    _last: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the present run, by quantity and name."""

    async def attempt(self, leg: Callable[[Entrant, Trial], Awaitable[None]], entrant: Entrant) -> None:
        """Measure one leg of one entrant. Who fails is out, and the report says why."""
        if entrant in self._out:
            return
        try:
            async with Trial.of(self.ground, entrant) as trial:
                about = await trial.prepare()
                self.report.settings[entrant.name] = about["versions"] | about["settings"]
                await leg(entrant, trial)
        except (ContenderFailed, TimeoutError, OSError, asyncpg.PostgresError) as error:
            self._out.add(entrant)
            why = str(error) or f"no answer within {PATIENCE_S:.0f} s"
            self.report.notes.append(f"{entrant.name} was given up: {why}")

    async def drain(self, entrant: Entrant, trial: Trial) -> None:
        """How fast a backlog is worked off."""
        jobs = self.options.starts if entrant.starts_workflows else self.options.jobs
        drained = await trial.drain(jobs, self.options.drain_limit_s)
        if entrant.starts_workflows:
            self._keep("start throughput", entrant, "starts/s", drained.per_s)
        else:
            self._keep("no-op throughput", entrant, "jobs/s", drained.per_s)
        note = f"{entrant.name} did not drain {jobs} jobs in {self.options.drain_limit_s:g} s; rated by what it began"
        if not drained.complete and note not in self.report.notes:
            self.report.notes.append(note)

    async def pick_up(self, entrant: Entrant, trial: Trial) -> None:
        """How soon a job begins where nothing else is to be done, or its start is acknowledged."""
        picked = await trial.pick_up(self.options.pickups)
        if entrant.starts_workflows:
            self._latency("event → start", entrant, [one.from_enqueue_ms for one in picked])
        else:
            self._latency("pick-up", entrant, [one.from_enqueue_ms for one in picked])
            self._samples("commit → begin", entrant, [one.from_commit_ms for one in picked])

    def relate(self) -> None:
        """At the end of a run: our values beside the best peer's of the same run."""
        for quantity, values in self._last.items():
            ours, peers = values.pop(OURS.name, None), values.values()
            if ours is not None and peers:
                best = max(peers) if "throughput" in quantity else min(peers)
                self._figure(f"{quantity} ÷ best peer", "×", GOALS.get(quantity)).runs.append(ours / best)
        self._last.clear()

    def _latency(self, quantity: str, entrant: Entrant, ms: list[float]) -> None:
        self._samples(quantity, entrant, ms)
        for percent in (50, 99):
            self._keep(f"{quantity} p{percent}", entrant, "ms", quantiles(ms, n=100, method="inclusive")[percent - 1])

    def _samples(self, quantity: str, entrant: Entrant, ms: list[float]) -> None:
        self.report.samples.setdefault(f"{quantity}, {entrant.name}", []).extend(ms)

    def _keep(self, quantity: str, entrant: Entrant, unit: str, value: float) -> None:
        self._last.setdefault(quantity, {})[entrant.name] = value
        self._figure(f"{quantity}, {entrant.name}", unit).runs.append(value)

    def _figure(self, name: str, unit: str, goal: Goal | None = None) -> Figure:
        if name not in self._figures:
            self._figures[name] = Figure(name, unit, [], goal)
            self.report.figures.append(self._figures[name])
        return self._figures[name]
