"""Runs the audit's SQL. It reads only, a page at a time, and keeps no transaction open between two."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from outbox.store.base import Statements
from outbox_temporal.audit.records import Entry

_SLOW_S = 300.0
"""For statements that may read a whole day of history before they find their first row."""


class Extent(NamedTuple):
    """How much there is to compare. Field order is that of `audit/extent.sql`."""

    messages: int
    namespaces: list[str]
    """Those that messages name."""
    kept_since: datetime
    """No history that was settled since then has been dropped."""


class AuditHistory(Statements):
    """What the outbox has written down. Every method may raise DatabaseUnavailable or DatabaseRefused."""

    async def audit_clock(self) -> datetime:
        """Return the database's time."""
        async with self._errors("read the clock"):
            now: datetime = await self._pool.fetchval(self._sql("audit/clock"))
        return now

    async def home_fault(self) -> str | None:
        """Why this database is a copy of the outbox's; None if it is not."""
        async with self._errors("read the outbox's home"):
            fault: str | None = await self._call("home_fault")
        return fault

    async def audit_extent(self, since: datetime, until: datetime) -> Extent:
        """Count the messages of a time."""
        async with self._errors("count messages"):
            [row] = await self._pool.fetch_slowly(self._sql("audit/extent"), since, until, timeout_s=_SLOW_S)
        return Extent._make(row)

    async def audit_messages(self, since: datetime, until: datetime, after: UUID, limit: int) -> list[Entry]:
        """Return the next page of the messages of a time, in the order of their ids; empty at the end."""
        async with self._errors("read messages"):
            rows = await self._pool.fetch_slowly(
                self._sql("audit/messages"), since, until, after, limit, timeout_s=_SLOW_S
            )
        return [Entry._make(row) for row in rows]

    async def audit_lookup(self, message_ids: Sequence[UUID]) -> list[Entry]:
        """Return the messages that have these ids, wherever they are. One id may have been used several times."""
        async with self._errors("look messages up"):
            return [Entry._make(row) for row in await self._pool.fetch(self._sql("audit/lookup"), message_ids)]
