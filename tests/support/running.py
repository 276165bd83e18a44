"""A worker inside the test's own event loop, with its sink and its events at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import anyio
import asyncpg

from outbox.config import settings as config
from outbox.config.settings import Settings
from outbox.model.events import Buried, Completed, Events
from outbox.model.sink import SinkFactory
from outbox.observability.pages import serving
from outbox.worker.worker import Worker
from tests.support.event_log import EventLog
from tests.support.kept import connection_for
from tests.support.sinks import FakeSink

STOPS_WITHIN_S = 20.0


def settings(dsn: str | None, **chosen: Any) -> Settings:
    """A worker's settings; those that the test does not choose suit short tests. No `dsn`: the environment's.

    Chosen are fields, or environment variables by their own names.
    """
    short: dict[str, Any] = {"deliver_timeout_s": 5.0, "lease_s": 30.0, "retry_base_s": 0.02, "retry_cap_s": 0.1}
    short["worker_name"] = "worker-1"
    return config.load(database_url=dsn, **{name.lower(): value for name, value in (short | chosen).items()})


@dataclass
class Running:
    """A worker that runs, and what the test can see of it."""

    worker: Worker
    sink: FakeSink
    log: EventLog
    ended: anyio.Event

    @property
    def completed(self) -> list[UUID]:
        """Ids of completed messages in the order in which they were settled."""
        return [s.message.message_id for event in self.log.of(Completed) for s in event.settlements]

    async def wait_completed(self, count: int, *, timeout_s: float = 15.0) -> None:
        """Return once so many messages are completed."""
        await self.log.wait_until(lambda: len(self.completed) >= count, what=f"{count} completed", timeout_s=timeout_s)

    async def wait_buried(self) -> Buried:
        """The first dead letter."""
        return await self.log.wait_for(Buried)

    async def stop(self) -> None:
        """Drain, and return when the worker has ended."""
        self.worker.stop()
        await self.wait_ended()

    async def wait_ended(self) -> None:
        """Return when the worker has ended."""
        with anyio.fail_after(STOPS_WITHIN_S):
            await self.ended.wait()


@asynccontextmanager
async def running(
    dsn: str | None,
    sink: FakeSink | None = None,
    *,
    factory: SinkFactory | None = None,
    wait: bool = True,
    **chosen: Any,
) -> AsyncIterator[Running]:
    """Run a worker for the block, with a fake sink or a real one's `factory`. What is left of it is cancelled.

    Without `wait`, enter the block before the worker is connected.
    """
    sink, log, ended = sink or FakeSink(), EventLog(), anyio.Event()
    events, how = Events(log), settings(dsn, **chosen)
    worker = Worker(how, factory or sink.factory, events)

    async def run(*, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        async with serving(how, worker.state, events) if how.http_port else nullcontext():
            await worker.run(task_status=task_status)
        ended.set()

    async with anyio.create_task_group() as tasks:
        if wait:
            await tasks.start(run)
        else:
            tasks.start_soon(run)
        yield Running(worker, sink, log, ended)
        worker.stop()
        sink.unblock()
        with anyio.move_on_after(STOPS_WITHIN_S):
            await ended.wait()
        tasks.cancel_scope.cancel()


async def enqueue(dsn: str, count: int = 1, *, topic: str = "test", payload: str = "{}") -> list[UUID]:
    """Commit so many messages in one transaction and return their ids in order."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        rows = await connection.fetch(
            "select outbox.enqueue($1, $3::json) as id from generate_series(1, $2)", topic, count, payload
        )
    finally:
        await connection.close(timeout=10)
    return [row["id"] for row in rows]


async def fetch(dsn: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    """Run one statement, as over a connection of its own."""
    async with connection_for(dsn, statement) as connection:
        return await connection.fetch(statement, *arguments)


async def counts(dsn: str) -> dict[str, int]:
    """Rows in the three tables where a message can be."""
    [row] = await fetch(
        dsn,
        """select (select count(*) from outbox.message) as message, (select count(*) from outbox.history) as history,
                  (select count(*) from outbox.dead_letter) as dead_letter""",
    )
    return dict(row)
