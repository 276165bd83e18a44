"""How long from a committed message to its workflow, stage by stage, beside direct starts of the same workflow.

Messages arrive at random moments whether or not earlier ones are through (open loop), and as many direct
`client.start_workflow` calls between them. Then both come one at a time, in turn. In every mode the worker is woken
that way only: by LISTEN, by Supabase Realtime, or by its own polling.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import anyio
import asyncpg
from temporalio.client import Client

from outbox.config import settings as config
from outbox_bench.load import executions
from outbox_bench.load.arrivals import arrive, schedule
from outbox_bench.load.definitions import WORKFLOW
from outbox_bench.load.in_process import connections
from outbox_bench.scenarios.latency import clocks
from outbox_bench.scenarios.latency.observed import Sightings, relaying
from outbox_bench.scenarios.latency.tally import Direct, Event, LatencyMeasurement
from outbox_bench.scenarios.options import option
from outbox_temporal.sdk.client import connect

if TYPE_CHECKING:
    from outbox_bench.load.lab import Lab
    from outbox_bench.report.report import Measurements, ShowProgress

_INPUT = {"organization_id": 42}
_KEPT_OPEN_AT_MOST = timedelta(hours=1)
_START = (
    f"select outbox.start_workflow('{WORKFLOW}', $1, '{{\"organization_id\": 42}}', task_queue => $2, "
    "execution_timeout => '1 hour')"
)
_WARM_UP = {"listen": 30, "realtime": 5, "poll": 3}
_CONNECTIONS = 20
_SETTLED_WITHIN_S = 30.0
_LOOKED_UP = 400
"""The number of events, and of direct starts, in a run for which Temporal reports its own times."""

Mode = Literal["listen", "realtime", "poll"]


@dataclass(frozen=True, slots=True)
class LatencyOptions:
    """What to measure."""

    mode: Literal["listen", "realtime", "poll", "all"] = option("all", "What wakes the worker.")
    rate: float = option(20.0, "Messages a second, and as many direct starts.")
    duration_s: float = option(10.0, "Seconds of arrivals, in each mode and run.", brief=1.0)
    pairs: int = option(
        100, "How many of each then come one at a time, in each run. Not measured in mode poll.", brief=10
    )
    runs: int = option(5, "How often everything is repeated.", brief=1)
    workflow_worker: bool = option(
        default=False, text="Run a Temporal worker in a process of its own, and measure to the first workflow task."
    )


OPTIONS = LatencyOptions


async def measure(lab: Lab, options: LatencyOptions, report: Measurements, show: ShowProgress) -> None:
    """Measure every mode in turn, run by run."""
    show("starting PostgreSQL and Temporal", 0.0)
    dsn, os.environ["TEMPORAL_ADDRESS"] = await lab.outbox(), await lab.temporal()
    modes = _modes(dsn, options, report)
    client = await connect()
    async with connections(dsn, _CONNECTIONS) as pool:
        bench = _Bench(dsn, client, pool, options, tidy="Temporal dev server" not in lab.embedded)
        steps = [(run, mode) for run in range(options.runs) for mode in modes]
        for number, (run, mode) in enumerate(steps):

            def passed(share: float, number: int = number, run: int = run, mode: str = mode) -> None:
                show(f"run {run + 1} of {options.runs}, mode {mode}", (number + share) / len(steps))

            await bench.run(mode, report, passed)


def _modes(dsn: str, options: LatencyOptions, report: Measurements) -> list[Mode]:
    """The modes that can be measured. The others are noted, or refused if they were requested by name."""
    if options.mode == "all":
        if config.load(database_url=dsn).realtime() is not None:
            return ["listen", "realtime", "poll"]
        report.notes.append("mode realtime was not measured: it needs --dsn, SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY")
        return ["listen", "poll"]
    config.load(database_url=dsn, mode=options.mode)  # says what is missing
    return [options.mode]


class _Bench:
    """Everything that outlasts one run."""

    def __init__(
        self, dsn: str, client: Client, pool: asyncpg.Pool[asyncpg.Record], options: LatencyOptions, *, tidy: bool
    ) -> None:
        self._dsn = dsn
        self._client = client
        self._pool = pool
        self._options = options
        self._tidy = tidy
        self._seed = random.SystemRandom().getrandbits(32)

    async def run(self, mode: Mode, report: Measurements, passed: Callable[[float], None]) -> None:
        """One mode once: open loop, then one at a time. What was measured before a cancellation is reported."""
        options = self._options
        passed(0.0)
        await self._pool.execute("truncate outbox.message, outbox.history")
        database = await clocks.of_database(self._dsn)
        task_queue = f"outbox-bench-{uuid4().hex[:8]}"
        tally = LatencyMeasurement(mode, options.rate, database)
        serving = executions.workflow_worker(task_queue) if options.workflow_worker else nullcontext()
        async with serving, relaying(config.load(database_url=self._dsn, mode=mode)) as seen:
            starts = _Starts(self._client, self._pool, seen, task_queue)
            try:
                for _ in range(_WARM_UP[mode]):
                    await starts.pair()
                await self._open_loop(starts, tally, passed)
                if mode != "poll":
                    await self._one_at_a_time(starts, tally, passed)
                await self._ask_temporal(starts, tally)
            finally:
                tally.fill(report, seen)

    async def _open_loop(self, starts: _Starts, tally: LatencyMeasurement, passed: Callable[[float], None]) -> None:
        """Both kinds by schedule, and the time until the last message is settled."""
        options = self._options
        already = len(starts.seen.settled)

        async def event(due_s: float) -> None:
            tally.events.append(await starts.event(due_s))

        async def direct(due_s: float) -> None:
            tally.directs.append(await starts.direct(due_s))

        self._seed += 1
        share = 0.7 / options.duration_s
        arrivals = schedule(options.rate, options.duration_s, event, direct, seed=self._seed)
        await arrive(arrivals, lambda elapsed_s: passed(elapsed_s * share))
        with anyio.move_on_after(_SETTLED_WITHIN_S):
            await starts.seen.settlements(already + len(tally.events))

    async def _one_at_a_time(self, starts: _Starts, tally: LatencyMeasurement, passed: Callable[[float], None]) -> None:
        for number in range(self._options.pairs):
            event_s, direct_s = await starts.pair()
            tally.alone_events_s.append(event_s)
            tally.alone_directs_s.append(direct_s)
            passed(0.7 + 0.3 * number / self._options.pairs)

    async def _ask_temporal(self, starts: _Starts, tally: LatencyMeasurement) -> None:
        """Temporal's own times of what was started by schedule; then end what would stay open."""
        started: list[Event | Direct] = [*tally.events[:_LOOKED_UP], *tally.directs[:_LOOKED_UP]]
        ids = [each.workflow_id for each in started]
        if self._options.workflow_worker:
            await executions.finish(self._client, ids, terminate=False)
        tally.wall_minus_monotonic_s = time.time() - monotonic()
        tally.executions = await executions.first_events(self._client, ids)
        if self._tidy and not self._options.workflow_worker:
            await executions.finish(self._client, starts.workflow_ids, terminate=True)


class _Starts:
    """Starts workflows in both ways, the same workflow with the same input."""

    def __init__(self, client: Client, pool: asyncpg.Pool[asyncpg.Record], seen: Sightings, task_queue: str) -> None:
        self.seen = seen
        self.workflow_ids: list[str] = []
        self._client = client
        self._pool = pool
        self._task_queue = task_queue

    async def event(self, due_s: float) -> Event:
        """Commit a message in a transaction of its own."""
        workflow_id = self._new_id("event")
        began_s = monotonic()
        message_id = await self._pool.fetchval(_START, workflow_id, self._task_queue)
        return Event(workflow_id, due_s, began_s, monotonic(), message_id)

    async def direct(self, due_s: float) -> Direct:
        """Start a workflow as an application without an outbox does."""
        workflow_id = self._new_id("direct")
        began_s = monotonic()
        await self._client.start_workflow(
            WORKFLOW, _INPUT, id=workflow_id, task_queue=self._task_queue, execution_timeout=_KEPT_OPEN_AT_MOST
        )
        return Direct(workflow_id, due_s, began_s, monotonic())

    async def pair(self) -> tuple[float, float]:
        """One of each, alone: seconds from before the insert, and of the call, until Temporal's acknowledgement."""
        event = await self.event(monotonic())
        event_s = await self.seen.acknowledgement(event.message_id) - event.began_s
        direct = await self.direct(monotonic())
        return event_s, direct.acknowledged_s - direct.began_s

    def _new_id(self, kind: str) -> str:
        workflow_id = f"outbox-bench-{kind}-{uuid4().hex}"
        self.workflow_ids.append(workflow_id)
        return workflow_id
