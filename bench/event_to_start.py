"""Time from an event to its started workflow, beside a direct start, interleaved in one run on embedded servers.

    `python -m bench.event_to_start --events 300 --runs 5`

"Event" runs from before the insert to Temporal's acknowledgement of the start that the relay makes; "direct" is
`client.start_workflow` with the same input. One of each at a time, so nothing waits in a queue.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from statistics import median, quantiles
from time import monotonic
from uuid import UUID, uuid4

import anyio
import asyncpg
from temporalio.client import Client

from outbox import config
from outbox.events import Completed, Event
from outbox.migrate import migrate
from outbox.worker import Worker
from workflows.embedded import PostgresServer, TemporalServer, running
from workflows.sink import temporal_sink

_START = "select outbox.start_workflow('Bench', $1, '{\"organization_id\": 42}', task_queue => 'bench')"
_WARM_UP = 30


class Acknowledgements:
    """A subscriber that wakes whoever waits for one message's start."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, anyio.Event] = {}
        self._done: dict[UUID, float] = {}

    def __call__(self, event: Event) -> None:
        """Note every completed message."""
        if isinstance(event, Completed):
            for settlement in event.settlements:
                self._done[settlement.message.message_id] = settlement.delivered_s
                if waiter := self._waiting.get(settlement.message.message_id):
                    waiter.set()

    async def of(self, message_id: UUID) -> float:
        """Return the monotonic time of the message's acknowledgement."""
        if message_id not in self._done:
            self._waiting[message_id] = anyio.Event()
            await self._waiting[message_id].wait()
        return self._done[message_id]


async def measure(dsn: str, address: str, events: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of `events` direct starts and of as many events, taken in turn."""
    os.environ["TEMPORAL_ADDRESS"] = address
    await migrate(dsn)
    acknowledgements = Acknowledgements()
    worker = Worker(config.load(database_url=dsn), temporal_sink, acknowledgements)
    client = await Client.connect(address)
    connection = await asyncpg.connect(dsn)
    direct_ms, event_ms = [], []
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        for number in range(events + _WARM_UP):
            workflow_id = uuid4().hex
            began_s = monotonic()
            await client.start_workflow(
                "Bench", {"organization_id": 42}, id=f"direct-{workflow_id}", task_queue="bench"
            )
            direct_s = monotonic() - began_s
            began_s = monotonic()
            message_id = await connection.fetchval(_START, f"event-{workflow_id}")
            event_s = await acknowledgements.of(message_id) - began_s
            if number >= _WARM_UP:
                direct_ms.append(1000 * direct_s)
                event_ms.append(1000 * event_s)
        worker.stop()
    await connection.close()
    return direct_ms, event_ms


async def main(events: int, runs: int) -> None:
    """Measure, and print each run's percentiles and the median of their ratios."""
    ratios: dict[int, list[float]] = {50: [], 99: []}
    async with (
        running(PostgresServer.start) as postgres,
        running(partial(TemporalServer.start, ui=False, in_memory=True)) as temporal,
    ):
        for run in range(runs):
            direct_ms, event_ms = await measure(postgres.dsn(), temporal.address, events)
            for percent, collected in ratios.items():
                direct, event = (quantiles(ms, n=100)[percent - 1] for ms in (direct_ms, event_ms))
                collected.append(event / direct)
                shown = f"direct {direct:.2f} ms, event {event:.2f} ms, ratio {event / direct:.2f}"
                print(f"run {run + 1} p{percent}: {shown}")
    for percent, collected in ratios.items():
        extent = f"min {min(collected):.2f}, max {max(collected):.2f}, {runs} runs"
        print(f"p{percent} event ÷ direct: median {median(collected):.2f} ({extent})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    anyio.run(partial(main, arguments.events, arguments.runs), backend_options={"use_uvloop": True})
