"""Runs SQL on the dead letters, and on messages that are to be cancelled. Decides nothing, as the store does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Literal, NamedTuple
from uuid import UUID

from outbox.store.base import Statements


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant. Everything that is given must hold; None asks for all."""

    topic: str | None = None
    """A topic, or `prefix.*` for every topic that begins so."""
    kind: str | None = None
    """Kind of the error that made it a dead letter."""
    reason: str | None = None
    key: str | None = None
    older_than_s: float | None = None
    """Dead for more than this many seconds, by the database's clock."""
    newer_than_s: float | None = None
    message_ids: Sequence[UUID] | None = None


_ARGUMENTS = attrgetter(*(field.name for field in fields(Filter)))
"""A filter as the statements' first parameters."""


class FoundDeadLetter(NamedTuple):
    """What decides whether a dead letter may be put back. Field order is that of `dead_letters/find.sql`."""

    message_id: UUID
    seq: int
    first_tried_s_ago: float
    starts: bool
    """Whether delivering it again could start a workflow."""
    namespace: str | None
    """The namespace that its target names."""
    living: bool
    """Whether an unsettled message has its id or dedup_key, so that it has to stay where it is."""


class DeadLetterTotal(NamedTuple):
    """Dead letters of one reason and kind. Field order is that of `dead_letters/totals.sql`."""

    reason: str
    kind: str
    messages: int
    oldest: datetime
    newest: datetime
    example: str


class DeadLetter(NamedTuple):
    """A dead letter whole. Field order is that of `dead_letters/read.sql`; JSON columns stay text."""

    message_id: UUID
    seq: int
    topic: str
    key: str | None
    dedup_key: str | None
    reason: str
    kind: str
    detail: str
    attempts: int
    deliveries: int
    priority: int
    created_at: datetime
    available_at: datetime
    first_tried_at: datetime
    claimed_at: datetime
    died_at: datetime
    worker: str | None
    target: str | None
    headers: str
    payload: str | None
    errors: str


class Cancelled(NamedTuple):
    """What became of a message that was to be cancelled. Field order is that of `dead_letters/cancel.sql`."""

    message_id: UUID
    cancelled: bool | None
    """False: a worker holds it. None: no unsettled message has this id."""
    status: str | None
    """Where `message_life` had it before; None if nowhere."""
    settled_at: datetime | None
    outcome: str | None
    tried: Literal["tried", "perhaps"] | None
    """Whether it may have got through before: it was claimed, or a crash may have erased that."""


class DeadLetters(Statements):
    """Statements for people. Every method may raise DatabaseUnavailable or DatabaseRefused."""

    async def find_dead_letters(self, which: Filter, limit: int | None = None) -> list[FoundDeadLetter]:
        """Return the dead letters that are meant, the latest first."""
        async with self._errors("find dead letters"):
            rows = await self._pool.fetch(self._sql("dead_letters/find"), *_ARGUMENTS(which), limit)
        return [FoundDeadLetter._make(row) for row in rows]

    async def dead_letter_totals(self, which: Filter) -> list[DeadLetterTotal]:
        """Count the dead letters that are meant, the most frequent first."""
        async with self._errors("count dead letters"):
            rows = await self._pool.fetch(self._sql("dead_letters/totals"), *_ARGUMENTS(which))
        return [DeadLetterTotal._make(row) for row in rows]

    async def read_dead_letters(self, message_ids: Sequence[UUID]) -> list[DeadLetter]:
        """Return dead letters with everything that is kept of them, the latest first."""
        async with self._errors("read dead letters"):
            rows = await self._pool.fetch(self._sql("dead_letters/read"), message_ids)
        return [DeadLetter._make(row) for row in rows]

    async def requeue(self, message_ids: Sequence[UUID]) -> dict[UUID, bool]:
        """Put dead letters back among the messages, and return for each dead one whether there was room for it."""
        async with self._errors("requeue"):
            rows = await self._pool.fetch(self._sql("dead_letters/requeue"), message_ids)
        return {row["message_id"]: row["requeued"] for row in rows}

    async def discard(self, message_ids: Sequence[UUID]) -> dict[UUID, bool]:
        """Delete dead letters for ever. The answer names those that were there, each True."""
        async with self._errors("discard"):
            rows = await self._pool.fetch(self._sql("dead_letters/discard"), message_ids)
        return {row["message_id"]: True for row in rows}

    async def cancel(self, message_ids: Sequence[UUID]) -> list[Cancelled]:
        """Take unsettled messages back, unless a worker holds them."""
        async with self._errors("cancel"):
            return [
                Cancelled._make(row) for row in await self._pool.fetch(self._sql("dead_letters/cancel"), message_ids)
            ]
