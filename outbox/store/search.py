"""Finds messages in any state, for people who know an id, a key or a workflow id."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from outbox.store.base import Statements


class FoundMessage(NamedTuple):
    """A message's life so far. Field order is that of `status/find.sql`; the meaning of each is `message_life`'s."""

    message_id: UUID
    status: str
    topic: str
    key: str | None
    operation: str | None
    workflow: str | None
    workflow_id: str | None
    run_id: str | None
    worker: str | None
    enqueued_at: datetime
    claimed_at: datetime | None
    settled_at: datetime | None
    next_try_at: datetime | None
    deliveries: int
    attempts: int
    outcome: str | None
    last_error: str | None


class Search(Statements):
    """Statements for people. Every method may raise DatabaseUnavailable or DatabaseRefused."""

    async def find(self, wanted: str, within_s: float, limit: int) -> list[FoundMessage]:
        """Return messages with this id, key or workflow id, the latest first; settled ones of the last `within_s`."""
        try:
            message_id = UUID(wanted)
        except ValueError:
            message_id = None
        async with self._errors("find"):
            rows = await self._pool.fetch(
                self._sql("status/find"), message_id, wanted, timedelta(seconds=within_s), limit
            )
        return [FoundMessage._make(row) for row in rows]
