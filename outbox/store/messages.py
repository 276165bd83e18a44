"""Runs the workers' SQL on the outbox: files under `sql/queries`, each named where it runs.

Nothing here decides anything: it carries values to the statement and its answer back. Every settle is conditional on
the lease token and returns the leases that were lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any

from outbox.model.dead_letter_reason import BurialReason
from outbox.model.errors import DatabaseRefused
from outbox.model.message import CLAIM_BYTES, FRONT, ClaimedBatch, LeaseId, Message, Outlook, Place
from outbox.model.sink import Delivered
from outbox.store.base import Statements, column
from outbox.store.completed import arguments
from outbox.store.sql import call

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.postgres.connections import Connections

_FIELDS = len(Message._fields)
_MESSAGE: Callable[[Any], Message] = partial(tuple.__new__, Message)
"""What `Message._make` does, without a Python frame for each of many rows."""
_PLACE = itemgetter(Message._fields.index("due_s"), Message._fields.index("seq"))
_UNIQUE_VIOLATION = "23505"


@dataclass(frozen=True, slots=True)
class Retry:
    """One message to put back. `delay_s` is in seconds from now; `counted` burns an attempt."""

    message: Message
    delay_s: float
    counted: bool
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Burial:
    """One message to make a dead letter; `discarded` leaves only a line in the history."""

    message: Message
    reason: BurialReason
    counted: bool
    kind: str
    detail: str


class Store(Statements):
    """Statements on messages. Each method may raise DatabaseUnavailable or DatabaseRefused.

    `now` is for tests that own the clock; in production it stays None and the database's clock is the only one.
    """

    def __init__(
        self, pool: Connections, schema: str, *, keep_history: bool = True, now: datetime | None = None
    ) -> None:
        super().__init__(pool, schema)
        self._keep_history = keep_history
        self.now = now

    async def claim(
        self, limit: int, *, lease_s: float, worker_id: int, after: Place = FRONT, max_bytes: int = CLAIM_BYTES
    ) -> ClaimedBatch:
        """Lease up to `limit` due messages that stand behind a place, in their order; none while rules are in force."""
        return await self._claim("claim/plain", limit, lease_s, worker_id, self.now, *after, max_bytes)

    async def claim_ruled(
        self, limit: int, *, lease_s: float, worker_id: int, after: Place = FRONT, max_bytes: int = CLAIM_BYTES
    ) -> ClaimedBatch:
        """The same while limits or pauses are in force, of which messages enqueued before may not know yet."""
        return await self._claim("claim/ruled", limit, lease_s, worker_id, self.now, *after, max_bytes)

    async def claim_restricted(
        self,
        limit: int,
        *,
        lease_s: float,
        worker_id: int,
        suspect_after: int,
        lane: str = "",
        series: int = 1,
        max_bytes: int = CLAIM_BYTES,
    ) -> ClaimedBatch:
        """Lease up to `limit` restricted messages that are due, of each key up to `series` that follow each other.

        `claim/restricted.sql` says which messages are restricted.
        """
        sent_s = monotonic()
        try:
            async with self._errors("claim"):
                rows = await self._pool.fetch(
                    self._sql("claim/restricted"),
                    limit,
                    lease_s,
                    worker_id,
                    suspect_after,
                    self.now,
                    lane,
                    series,
                    max_bytes,
                )
        except DatabaseRefused as error:
            if error.sqlstate != _UNIQUE_VIOLATION:
                raise
            return ClaimedBatch([], monotonic(), sent_s, more=True, lane=lane)  # another was faster
        messages = [] if rows[0][0] is None else [_MESSAGE(row[:_FIELDS]) for row in rows]
        more, next_due_s, lane = rows[0][_FIELDS:]
        return ClaimedBatch(messages, monotonic(), sent_s + lease_s, more, next_due_s, lane)

    async def outlook(self, worker_id: int | None = None) -> Outlook:
        """Return what there is to claim, when there will be something, and whether other workers hold any."""
        async with self._errors("claim"):
            row = await self._pool.fetchrow(self._sql("claim/outlook"), self.now, worker_id)
        assert row is not None
        return Outlook(monotonic(), *row)

    async def complete(self, answers: Sequence[tuple[Message, Delivered, *tuple[object, ...]]]) -> set[LeaseId]:
        """Move delivered messages to the history."""
        values = arguments(answers, keep_history=self._keep_history, now=self.now)
        async with self._errors("complete"):
            lost = await self._pool.fetch(self._sql("settle/complete"), *values)
        return {(row[0], row[1]) for row in lost}

    async def retry(self, retries: Sequence[Retry]) -> set[LeaseId]:
        """Put messages back, due after their delay, with an error on their record."""
        columns = (column(retries, name) for name in ("delay_s", "counted", "kind", "detail"))
        return await self._settle("settle/retry", [retry.message for retry in retries], *columns)

    async def bury(self, burials: Sequence[Burial]) -> set[LeaseId]:
        """Move messages to the dead letters."""
        columns = (column(burials, name) for name in ("reason", "counted", "kind", "detail"))
        return await self._settle("settle/bury", [burial.message for burial in burials], *columns)

    async def release(self, messages: Sequence[Message]) -> set[LeaseId]:
        """Give leases back as if they had never been taken, and wake the workers that listen."""
        return await self._settle("settle/release", messages)

    async def wake(self) -> None:
        """Wake every worker that listens."""
        async with self._errors("wake"):
            await self._call("wake")

    async def probe(self) -> None:
        """Notify the listeners, without a message behind it."""
        async with self._errors("probe"):
            await self._call("probe")

    async def call_sleepers(self, after: str = "") -> tuple[int, str | None]:
        """Call messages that wait behind nothing, of some keys behind `after`; return how many, and where to go on."""
        async with self._errors("maintain"):
            return tuple((await self._pool.fetch(call("call_sleepers", 1, self._schema), after))[0])

    async def _claim(self, name: str, limit: int, lease_s: float, *values: object) -> ClaimedBatch:
        sent_s = monotonic()
        async with self._errors("claim"):
            rows = await self._pool.fetch(self._sql(name), limit, lease_s, *values)
        rows.sort(key=_PLACE)
        return ClaimedBatch(list(map(_MESSAGE, rows)), monotonic(), sent_s + lease_s, more=len(rows) == limit)

    async def _settle(self, name: str, messages: Sequence[Message], *columns: object) -> set[LeaseId]:
        """Run a settling statement and return the leases that were lost."""
        ids = [message.message_id for message in messages]
        tokens = [message.lease_token for message in messages]
        async with self._errors(name.removeprefix("settle/")):
            lost = await self._pool.fetch(self._sql(name), ids, tokens, *columns, self.now)
        return {(row[0], row[1]) for row in lost}
