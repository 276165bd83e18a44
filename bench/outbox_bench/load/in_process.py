"""A relay at work in this process, with its events at hand, and the rows that it works on.

Everything in the outbox of the database is deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
import asyncpg

from outbox.config import settings as config
from outbox.model.events import Claimed, Completed, Event, Events, SourceReady
from outbox.model.sink import SinkFactory
from outbox.worker.worker import Worker
from outbox_bench.load.nullsink import null_sink

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

TOPIC = "bench"
_TRUNCATE = "truncate outbox.message, outbox.history, outbox.dead_letter"
_FILL = """
insert into outbox.message (message_id, due_at, available_at, created_at, topic, payload)
select outbox.new_message_id(), now, now, now, $2, json_build_object('text', repeat('x', 100))
from generate_series(1, $1::int), lateral (select clock_timestamp() as now) as t
"""


class Watch:
    """A subscriber that keeps count of the relay's work on the topic TOPIC. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.claims: list[Claimed] = []
        self.completed = 0
        self.began_s = 0.0
        """When the first claim since `restart` was sent."""
        self.ended_s = 0.0
        """When the latest settlement was answered."""
        self.delivered_s: dict[UUID, float] = {}
        """When messages of other topics were delivered."""
        self._news = anyio.Event()

    def restart(self) -> None:
        """Count from here."""
        self.claims.clear()
        self.completed, self.began_s = 0, 0.0

    def __call__(self, event: Event) -> None:
        """Count."""
        if isinstance(event, Claimed):
            self.began_s = self.began_s or monotonic() - event.took_s
            self.claims.append(event)
        elif isinstance(event, Completed):
            for settlement in event.settlements:
                if settlement.message.topic == TOPIC:
                    self.completed += 1
                else:
                    self.delivered_s[settlement.message.message_id] = settlement.delivered_s
            self.ended_s = monotonic()
        elif not isinstance(event, SourceReady):
            return
        news, self._news = self._news, anyio.Event()
        news.set()

    async def until(self, state: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is looked at after every claim and settlement."""
        while not state():
            await self._news.wait()

    async def rate(self, count: int) -> float:
        """Wait for this many completions; return messages a second from the first claim on."""
        await self.until(lambda: self.completed >= count)
        return self.completed / (self.ended_s - self.began_s)


@asynccontextmanager
async def relay_at_work(
    dsn: str, *watches: Callable[[Event], None], sink: SinkFactory = null_sink, **chosen: object
) -> AsyncIterator[None]:
    """A worker for the block, drained at its end. `chosen` overrides the settings of the environment."""
    settings = config.load(database_url=dsn, schema_name="outbox", **chosen)
    worker = Worker(settings, sink, Events(*watches))
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        yield
        worker.stop()


@asynccontextmanager
async def connected(dsn: str, name: str = "outbox bench") -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that keeps prepared statements, as applications' do and ours do not."""
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": name})
    try:
        yield connection
    finally:
        connection.terminate()


def connections(dsn: str, most: int) -> asyncpg.pool.Pool[asyncpg.Record]:
    """A pool that gives its connections back as they are: nothing here changes their state."""
    return asyncpg.create_pool(dsn, min_size=4, max_size=most, reset=_keep)


async def _keep(_connection: object) -> None:
    pass


async def empty(connection: Connection) -> None:
    """Throw away all messages, settled ones too."""
    await connection.execute(_TRUNCATE)


async def fill(connection: Connection, rows: int) -> None:
    """Commit this many messages at once, of 112 bytes of payload each, past the checks of `outbox.enqueue`."""
    if rows:
        await connection.execute(_FILL, rows, TOPIC)


async def settle_down(connection: Connection) -> None:
    """Take vacuum, statistics and checkpoint out of what is measured next, as far as our rights allow."""
    await connection.execute("vacuum analyze outbox.message")
    with suppress(asyncpg.InsufficientPrivilegeError):
        await connection.execute("checkpoint")
