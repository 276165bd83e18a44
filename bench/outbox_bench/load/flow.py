"""A steady flow of events. Afterwards each workflow is looked up: none may be missing, none may exist twice.

Open loop: events come when they are due, whether or not earlier ones are through. Their latency counts from then to
the moment in which the frontend began the workflow.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
import asyncpg
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client

from outbox_bench.load import executions
from outbox_bench.load.direct import TASK_QUEUE, WORKFLOW
from outbox_bench.load.in_process import connected, connections, empty
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.postgres import running

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

NONE = Goal("≤", 0.0)
_SEND = f"select outbox.start_workflow('{WORKFLOW}', $1, '{{\"organization_id\": 42}}', task_queue => '{TASK_QUEUE}')"
_LEFT = "select (select count(*) from outbox.message) + (select count(*) from outbox.dead_letter)"
_LOOK_EVERY_S = 0.05
_SETTLED_WITHIN_S = 60.0
_CONNECTIONS = 16
_FRONTEND = FrontendOptions(latency_ms=2.0, jitter_ms=1.0, tail=0.5)
"""An answer that takes what Temporal's takes where it has room, so that deliveries are in flight at each moment."""


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """What was sent, and what the frontend recorded."""

    due_s: dict[str, float]
    """By workflow id: when each committed event was due, in monotonic seconds."""
    started_s: dict[str, float]
    """When its workflow began, for those that the frontend recorded, on the same clock."""
    executions: int
    """How many workflows the frontend began in all."""
    left: int = 0
    """Messages that were not settled in the end, dead letters among them."""

    @property
    def lost(self) -> int:
        """Committed events without a workflow."""
        return len(self.due_s.keys() - self.started_s.keys())

    @property
    def doubled(self) -> int:
        """Workflows beyond one for each event."""
        return max(0, self.executions - len(self.started_s))

    def latencies_s(self, begin_s: float, end_s: float) -> list[float]:
        """Of the events that were due in this time: seconds from then to the workflow's beginning."""
        return [
            self.started_s[workflow_id] - due_s
            for workflow_id, due_s in self.due_s.items()
            if begin_s <= due_s < end_s and workflow_id in self.started_s
        ]

    def judge(self, report: Measurements) -> None:
        """Add one run's figures on what became of the events. What is lost or doubled counts over all runs together."""
        report.total("events lost", "events", float(self.lost), NONE)
        report.total("events doubled", "events", float(self.doubled), NONE)
        report.total("events sent", "events", float(len(self.due_s)))
        if self.left:
            report.note(f"{self.left} messages were not settled {_SETTLED_WITHIN_S:g} s after the last event")


class Flow:
    """Events at a rate, from `steady_flow`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], rate: float) -> None:
        self._pool = pool
        self._rate = rate
        self._ended = False
        self._committed = anyio.Event()
        self.due_s: dict[str, float] = {}

    async def run(self) -> None:
        """Send until ended, at random moments."""
        dice, due_s = random.Random(), monotonic()  # noqa: S311 - no secret
        async with anyio.create_task_group() as tasks:
            while not self._ended:
                due_s += dice.expovariate(self._rate)
                await anyio.sleep(max(0.0, due_s - monotonic()))
                tasks.start_soon(self._send, due_s)
        self._committed.set()

    async def end(self) -> None:
        """Send nothing more, and return when all that was sent is committed. May be called again."""
        self._ended = True
        await self._committed.wait()

    async def _send(self, due_s: float) -> None:
        workflow_id = f"bench-{uuid4()}"
        await self._pool.execute(_SEND, workflow_id)
        self.due_s[workflow_id] = due_s


@asynccontextmanager
async def steady_flow(dsn: str, rate: float) -> AsyncIterator[Flow]:
    """Events for the block, into an outbox that is emptied first; all of them are committed at its end."""
    async with connected(dsn) as connection:
        await empty(connection)
    async with connections(dsn, _CONNECTIONS) as pool:
        flow = Flow(pool, rate)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flow.run)
            yield flow
            await flow.end()


async def ledger(connection: Connection, client: Client, flow: Flow, before: int) -> FlowRecord:
    """Wait until nothing is left to do, then look every event up. `before`: what `count` said before the first."""
    left = 0
    with anyio.move_on_after(_SETTLED_WITHIN_S):
        while left := await connection.fetchval(_LEFT):  # noqa: ASYNC110 - the workers are not ours to ask
            await anyio.sleep(_LOOK_EVERY_S)
    shift_s = time.time() - monotonic()
    found = await executions.first_events(client, flow.due_s)
    started_s = {workflow_id: times.started_s - shift_s for workflow_id, times in found.items()}
    return FlowRecord(flow.due_s, started_s, await count(client) - before, left)


async def count(client: Client) -> int:
    """How many workflows the frontend has begun since its start."""
    request = CountWorkflowExecutionsRequest(namespace=client.namespace)
    return (await client.workflow_service.count_workflow_executions(request)).count


@asynccontextmanager
async def frontend(report: Measurements) -> AsyncIterator[StubFrontend]:
    """The frontend that takes the starts, for the block, and a note that says which it is."""
    report.note(
        "the frontend is outbox_bench.temporal_stub.frontend, a stand-in for Temporal's in a process of its own, on "
        "this machine: it "
        "remembers workflow ids and request ids as Temporal does, counts what it begins, and executes nothing",
    )
    report.settings["stub"] = " ".join(_FRONTEND.arguments())
    async with running(partial(StubFrontend.start, _FRONTEND)) as stub:
        yield stub
