"""The demo's application: a shop that commits orders together with their messages.

Two transactions in ten go wrong in the ways that start ghosts and twins elsewhere: one is rolled back after it has
enqueued, and one commits a second message for the same workflow id, as a caller's retry does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

import anyio
import asyncpg
import orjson

_CREATE = "create table if not exists demo_order (number int, run text, amount int, primary key (run, number))"
_ORDER = "insert into demo_order (number, run, amount) values ($1, $2, $3)"
_START = "select outbox.start_workflow('DemoOrder', $1, $2::json, task_queue => $3)"
_CONNECTIONS = 4


@dataclass
class Shop:
    """Commits `orders` orders at about `rate` a second, and remembers what it did, by workflow id."""

    dsn: str
    schema: str
    run: str
    task_queue: str
    orders: int
    rate: float
    committed: set[str] = field(default_factory=set)
    """Workflow ids of committed orders: each must become exactly one workflow."""
    rolled_back: set[str] = field(default_factory=set)
    """Workflow ids of rolled-back orders: none may ever exist."""
    duplicates: int = 0
    """Committed messages beyond the first for their workflow id."""
    committed_at: dict[UUID, float] = field(default_factory=dict)
    """Message id → monotonic seconds just before its commit was sent."""

    async def trade(self) -> None:
        """Run every transaction, over a few connections, at the given rate."""
        async with asyncpg.create_pool(self.dsn, min_size=1, max_size=_CONNECTIONS, command_timeout=30) as pool:
            await pool.execute(_CREATE)
            began_s = monotonic()
            async with anyio.create_task_group() as tasks:
                for lane in range(_CONNECTIONS):
                    tasks.start_soon(self._lane, pool, lane, began_s)

    async def _lane(self, pool: asyncpg.Pool[asyncpg.Record], lane: int, began_s: float) -> None:
        for number in range(lane, self.orders, _CONNECTIONS):
            await anyio.sleep(max(0.0, began_s + number / self.rate - monotonic()))
            await self._transact(pool, number)

    async def _transact(self, pool: asyncpg.Pool[asyncpg.Record], number: int) -> None:
        """One business transaction: the order and its message, together or not at all."""
        workflow_id = f"demo-{self.run}-order-{number:05d}"
        goes_wrong, comes_twice = number % 10 == 3, number % 10 == 7
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(_ORDER, number, self.run, 100 + number)
            ids = [await self._enqueue(connection, workflow_id, number) for _ in range(1 + comes_twice)]
            if goes_wrong:
                await transaction.rollback()
                self.rolled_back.add(workflow_id)
                return
            committing_s = monotonic()
            await transaction.commit()
        self.committed.add(workflow_id)
        self.duplicates += comes_twice
        self.committed_at |= dict.fromkeys(ids, committing_s)

    async def _enqueue(
        self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], workflow_id: str, number: int
    ) -> UUID:
        order = orjson.dumps({"number": number, "amount": 100 + number}).decode()
        statement = _START.replace("outbox.", f"{self.schema}.", 1)
        return UUID(str(await connection.fetchval(statement, workflow_id, order, self.task_queue)))
