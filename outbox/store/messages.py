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
from uuid import UUID

import orjson

from outbox.model.dead_letter_reason import BurialReason
from outbox.model.errors import DatabaseReadOnly, DatabaseRefused
from outbox.model.message import CLAIM_BYTES, FRONT, ClaimedBatch, LeaseId, Message, Outlook, Pause, Place, Presence
from outbox.model.sink import Delivered
from outbox.store.base import column, joined
from outbox.store.overview import Overview
from outbox.store.sql import call

if TYPE_CHECKING:
    from datetime import datetime

    from outbox.postgres.pool import Pool

_FIELDS = len(Message._fields)
_MESSAGE: Callable[[Any], Message] = partial(tuple.__new__, Message)
"""What `Message._make` does, without a Python frame for each of many rows."""
_PLACE = itemgetter(Message._fields.index("due_s"), Message._fields.index("seq"))
_MAINTAIN_TIMEOUT_S = 60.0
_RESCUE_TIMEOUT_S = 60.0
_UNIQUE_VIOLATION = "23505"
_DRAWS = 1000
"""Of a number that others have."""


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


class Store(Overview):
    """Statements on one outbox schema. Every method may raise DatabaseUnavailable or DatabaseRefused.

    `now` is for tests that own the clock; in production it stays None and the database's clock is the only one.
    """

    def __init__(self, pool: Pool, schema: str, *, keep_history: bool = True, now: datetime | None = None) -> None:
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
        """Tell what there is to claim, when there will be something, and whether others than this worker hold any."""
        async with self._errors("claim"):
            row = await self._pool.fetchrow(self._sql("claim/outlook"), self.now, worker_id)
        assert row is not None
        return Outlook(monotonic(), *row)

    async def complete(self, answers: Sequence[tuple[Message, Delivered, *tuple[object, ...]]]) -> set[LeaseId]:
        """Move delivered messages to the history."""
        ids = [answer[0].message_id for answer in answers]
        tokens = [str(answer[0].lease_token) for answer in answers]
        workflow_ids = [answer[1].workflow_id or "" for answer in answers]
        run_ids = [answer[1].run_id or "" for answer in answers]
        duplicates = [answer[0].message_id for answer in answers if answer[1].duplicate]
        # The driver spends a microsecond on each item of an array, more than on everything else that is done here.
        comma, columns = joined(tokens, workflow_ids, run_ids)
        async with self._errors("complete"):
            lost = await self._pool.fetch(
                self._sql("settle/complete"), ids, *columns, comma, duplicates, self._keep_history, self.now
            )
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
        """Give leases back as if they had never been taken, and wake whoever listens for them."""
        return await self._settle("settle/release", messages)

    async def register(self, name: str, version: str, detail: dict[str, Any]) -> int:
        """Enter this worker process in the register and return its worker id."""
        async with self._errors("register"):
            for _ in range(_DRAWS):
                text = orjson.dumps(detail).decode()
                if (
                    worker_id := await self._pool.fetchval(self._sql("presence/register"), name, version, text)
                ) is not None:
                    return int(worker_id)
        raise DatabaseRefused("register: a sequence was left behind: `outbox migrate` sets it", sqlstate="23505")

    async def heartbeat(self, worker_id: int, state: str, detail: dict[str, Any]) -> None:
        """Say that the worker lives and what it does."""
        async with self._errors("heartbeat"):
            await self._pool.execute(self._sql("presence/heartbeat"), worker_id, state, orjson.dumps(detail).decode())

    async def assert_presence(self, worker_id: int) -> int:
        """Take a lock that shows, for as long as this store's session lasts, that the worker lives; return it."""
        async with self._errors("presence"):
            presence = await self._pool.fetchval(self._sql("presence/assert_presence"), worker_id)
        if presence is None:
            raise DatabaseRefused(f"presence: worker {worker_id} is not registered there", sqlstate="")
        return int(presence)

    async def has_presence(self, worker_id: int, presence: int) -> bool:
        """Say whether others still take the worker for present under this lock."""
        async with self._errors("presence"):
            return bool(await self._pool.fetchval(self._sql("presence/has_presence"), worker_id, presence))

    async def absent(self, worker_id: int, *, grace_s: float) -> set[Presence]:
        """Return which workers other than this one nobody sees; after a restart of the server, only after a grace."""
        async with self._errors("rescue"):
            return set(map(tuple, await self._pool.fetch(self._sql("presence/absent"), worker_id, grace_s)))

    async def rescue(self, dead: Sequence[Presence]) -> list[tuple[str, int]]:
        """End the leases of these workers, if they are absent still; return the name and the messages of each."""
        workers, presences = [who[0] for who in dead], [who[1] for who in dead]
        async with self._errors("rescue"):
            rows = await self._pool.fetch_slowly(
                self._sql("presence/rescue"), workers, presences, self.now, timeout_s=_RESCUE_TIMEOUT_S
            )
        return [(row["name"], row["messages"]) for row in rows]

    async def control(self) -> tuple[dict[str, Any], list[Pause]]:
        """Return the switches of the control table, and what is paused."""
        async with self._errors("control"):
            row = await self._pool.fetchrow(self._sql("rules/control"))
        assert row is not None
        return orjson.loads(row["switches"]), [Pause(*pause) for pause in orjson.loads(row["pauses"])]

    async def look_home(self) -> None:
        """Pause everything, if this database is a copy."""
        async with self._errors("look home"):
            await self._call("look_home")

    async def adopt(self) -> bool:
        """Have this database be the outbox, and no copy; return whether it was one."""
        async with self._errors("adopt"):
            return bool(await self._call("adopt"))

    async def set_switch(self, name: str, value: object) -> None:
        """Set a switch for every worker; None removes it."""
        async with self._errors("control"):
            text = None if value is None else orjson.dumps(value).decode()
            await self._call("set_switch", name, text)

    async def pause(self, what: Pause) -> None:
        """Stop the delivery of a topic or a key, or of everything."""
        async with self._errors("pause"):
            await self._call("pause", what.topic, what.key)

    async def resume(self, what: Pause) -> bool:
        """End a pause; return whether there was one."""
        async with self._errors("resume"):
            return bool(await self._call("resume", what.topic, what.key))

    async def limit_topic(self, topic: str, rate: float | None, burst: int | None) -> bool:
        """Have at most `rate` messages a second claimed of a topic, None: any. Return whether it had a limit."""
        async with self._errors("limit"):
            return bool(await self._call("limit_topic", topic, rate, burst))

    async def wake(self) -> None:
        """Wake every worker that listens."""
        async with self._errors("wake"):
            await self._call("wake")

    async def probe(self) -> None:
        """Notify whoever listens for wake-ups, without a message behind it."""
        async with self._errors("probe"):
            await self._call("probe")

    async def maintain(self, *, days_ahead: int, keep_days: int) -> list[tuple[str, str]]:
        """Create history partitions, then drop old ones, unless another worker is at it; return (what, name) of each.

        Workers that the history does not know any more are forgotten.
        """
        duties = {
            "maintenance/create_history": days_ahead,
            "maintenance/drop_history": keep_days,
            "maintenance/forget_workers": keep_days * 86_400.0,
        }
        done: list[tuple[str, str]] = []
        async with self._errors("maintain"):
            for duty, argument in duties.items():
                rows = await self._pool.fetch_slowly(self._sql(duty), argument, timeout_s=_MAINTAIN_TIMEOUT_S)
                done += [(row["what"], row["name"]) for row in rows]
        return done

    async def forget_keys(self, limit: int) -> int:
        """Forget dedup keys whose window is over, at most `limit`; return how many."""
        async with self._errors("maintain"):
            return int(await self._pool.fetchval(self._sql("maintenance/forget_keys"), limit))

    async def call_sleepers(self, after: str = "") -> tuple[int, str | None]:
        """Call messages that wait behind nothing, of some keys behind `after`; return how many, and where to go on."""
        async with self._errors("maintain"):
            return tuple((await self._pool.fetch(call("call_sleepers", 1, self._schema), after))[0])

    async def applied_migrations(self) -> list[tuple[int, str, str, int | None]]:
        """Version, name, checksum of each, and what it serves. Raises DatabaseReadOnly where nothing can be written."""
        async with self._errors("check"):
            row = await self._pool.fetchrow(self._sql("status/applied_migrations"))
            assert row is not None
            if row["read_only"]:
                raise DatabaseReadOnly("check: this server takes no writes, it is read-only")
        return [tuple(line) for line in orjson.loads(row["migrations"])]

    async def enqueue_many(self, messages: bytes) -> list[UUID]:
        """Enqueue a JSON array of messages in one transaction and return their ids in its order."""
        async with self._errors("enqueue"):
            rows = await self._pool.fetch(call("enqueue_many", 1, self._schema), messages.decode())
        return [row[0] for row in rows]

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
