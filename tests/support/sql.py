"""A direct look into the database under test, and two workers' stores on one clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from outbox.model.message import Message
from outbox.postgres.pool import Pool, open_pool
from outbox.store.messages import Store
from outbox.store.overview import Overview
from outbox.store.retention import Retention
from outbox.store.rules import Rules
from outbox.store.workers import Workers
from tests.support.eventually import eventually


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection for the block."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=60)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


@asynccontextmanager
async def blocked_on(
    observer: asyncpg.Connection[asyncpg.Record], waiting: asyncpg.Connection[asyncpg.Record]
) -> AsyncIterator[None]:
    """Enter the block once `waiting` really waits for another transaction's lock."""
    pid = waiting.get_server_pid()
    await eventually(lambda: observer.fetchval("select cardinality(pg_blocking_pids($1))", pid), bool, timeout_s=15)
    yield


class Clock:
    """A store with a `now` that the test moves. It starts at the database's time, so that enqueued messages are due."""

    def __init__(self, pool: Pool, now: datetime, worker_id: int, *, history: bool) -> None:
        self.pool = pool
        self.worker_id = worker_id
        self.store = Store(pool, "outbox", keep_history=history, now=now)
        self.workers, self.rules = Workers(pool, "outbox"), Rules(pool, "outbox")
        self.retention, self.overview = Retention(pool, "outbox"), Overview(pool, "outbox")

    @property
    def now(self) -> datetime:
        assert self.store.now is not None
        return self.store.now

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.store.now = self.now + timedelta(seconds=seconds)

    async def enqueue(self, *topics: str, due_in_s: float = 0.0) -> None:
        """Messages without payload, due in this order from `due_in_s` seconds from now, a microsecond apart."""
        await self.pool.execute(
            """
            insert into outbox.message (message_id, due_at, available_at, created_at, topic)
            select outbox.new_message_id(), at, at, $1, topic
            from unnest($2::text[]) with ordinality as t (topic, place),
                 lateral (select $1::timestamptz + make_interval(secs => $3 + (place - 1) * 1e-6) as at) a
            """,
            self.now,
            topics,
            due_in_s,
        )
        if due_in_s == 0:
            self.pass_s(len(topics) * 1e-6)

    async def claim(
        self, limit: int = 100, *, lease_s: float = 60.0, suspect_after: int = 2, series: int = 1
    ) -> list[Message]:
        """What a claim brings."""
        how: dict[str, Any] = {"lease_s": lease_s, "worker_id": self.worker_id}
        ruled = (await self.store.outlook()).ruled
        claim = self.store.claim_ruled if ruled else self.store.claim
        messages = (await claim(limit, **how)).messages
        more = (await self.store.outlook()).restricted
        while more and len(messages) < limit:  # the first claim may only put messages in their lanes
            room = limit - len(messages)
            batch = await self.store.claim_restricted(room, **how, suspect_after=suspect_after, series=series)
            messages = messages + batch.messages
            more = batch.more and not batch.messages
        return messages

    async def rows(self) -> dict[str, Any]:
        """The hot table by topic."""
        return {row["topic"]: row for row in await self.pool.fetch("select * from outbox.message order by seq")}


@asynccontextmanager
async def clock(dsn: str, *, history: bool = True, name: str = "worker-1", size: int = 4) -> AsyncIterator[Clock]:
    """A registered worker's store under the test's clock."""
    async with open_pool(dsn, size=size, application_name=name, statement_timeout_s=30) as pool:
        worker_id = await Workers(pool, "outbox").register(name, "test", {})
        now = await pool.fetchval("select date_trunc('second', now())")
        yield Clock(pool, now, worker_id, history=history)
