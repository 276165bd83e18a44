"""Runs the SQL that enqueues from the command line. Applications use `outbox.producer` inside their transaction."""

from __future__ import annotations

from uuid import UUID

from outbox.store.base import Statements
from outbox.store.sql import call


class Enqueuing(Statements):
    """Statements that enqueue. Each method may raise DatabaseUnavailable or DatabaseRefused."""

    async def enqueue_many(self, messages: bytes) -> list[UUID]:
        """Enqueue a JSON array of messages in one transaction and return their ids in its order."""
        async with self._errors("enqueue"):
            rows = await self._pool.fetch(call("enqueue_many", 1, self._schema), messages.decode())
        return [row[0] for row in rows]
