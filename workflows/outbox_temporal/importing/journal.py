"""The bookkeeping of imports, in the database of the outbox: which rows were moved, and what became of their messages.

A row is noted in the transaction that enqueues its message, or takes it back. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from outbox.model.errors import DatabaseRefused
from outbox.producer import enqueue_many
from outbox.store.base import Statements
from outbox_temporal.importing.rows import Planned

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_UNIQUE_VIOLATION = "23505"
TIMEOUT_S = 120.0
"""For one transaction, waiting for another run of the same import included."""


def rollback_topic(name: str) -> str:
    """The topic of the messages by which the rollback of an import ends workflows."""
    return f"import.{name}.rollback"


class Import(NamedTuple):
    """An import in its present state. Field order is that of `imports/read.sql`."""

    import_id: int
    identity: str
    rolling_back: bool
    rollbacks: int
    """How many rollbacks of it have begun."""
    moved: int


class Known(NamedTuple):
    """A row that was moved before. Field order is that of `imports/known_rows.sql`."""

    same_row: bool
    """Whether it was asked for by its identity, not by its workflow."""
    name: str
    identity: str
    workflow_id: str
    namespace: str


class Moved(NamedTuple):
    """A row that was moved. Field order is that of `imports/imported_rows.sql`."""

    identity: str
    message_id: UUID
    namespace: str
    workflow: str
    workflow_id: str
    fate: str | None
    """`waiting`, `in flight`, `dead`, or the history's outcome; None if the outbox has no record of it any more."""
    tried: bool
    """Whether a worker has ever held the message."""
    error: str | None


class Books(Statements):
    """Statements on the bookkeeping. Every method may raise DatabaseUnavailable or DatabaseRefused."""

    async def open_import(self, name: str, identity: str) -> Import:
        """Begin an import, or find the one that has begun, which may have another identity."""
        while True:
            try:
                async with self._errors("begin the import"):
                    [row] = await self._pool.fetch(self._sql("imports/open"), name, identity)
            except DatabaseRefused as error:
                if error.sqlstate != _UNIQUE_VIOLATION:
                    raise  # else another import has the number that was drawn: the next draw is higher
            else:
                return Import._make(row)

    async def read_import(self, name: str) -> Import | None:
        """Find an import."""
        async with self._errors("read the import"):
            rows = await self._pool.fetch(self._sql("imports/read"), name)
        return Import._make(rows[0]) if rows else None

    async def pending_ends(self, topic: str) -> int:
        """How many workflows an earlier rollback has yet to end."""
        async with self._errors("look for an earlier rollback"):
            return int(await self._pool.fetchval(self._sql("imports/pending_ends"), topic))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction for the methods below that take a connection."""
        async with (
            self._errors("import"),
            self._pool.acquire(timeout_s=TIMEOUT_S) as connection,
            connection.transaction(isolation="read_committed"),
        ):
            yield connection

    async def lock_import(self, connection: Connection, import_id: int) -> tuple[bool, int] | None:
        """Keep other runs of an import out until the transaction ends.

        Returns whether it is being rolled back, and how many rollbacks have begun; None if the import is gone.
        """
        row = await connection.fetchrow(self._sql("imports/lock"), import_id)
        return None if row is None else (row["rolling_back"], row["rollbacks"])

    async def known_rows(
        self,
        import_id: int | None,
        identities: Sequence[str],
        workflows: Sequence[tuple[str, str]],
        connection: Connection | None = None,
    ) -> list[Known]:
        """Find rows moved before: of this import by identity, of any by workflow id and namespace."""
        ids, namespaces = [pair[0] for pair in workflows], [pair[1] for pair in workflows]
        arguments = (import_id, identities, ids, namespaces)
        if connection is None:
            async with self._errors("look for rows that were moved"):
                rows = await self._pool.fetch(self._sql("imports/known_rows"), *arguments)
        else:
            rows = await connection.fetch(self._sql("imports/known_rows"), *arguments)
        return [Known._make(row) for row in rows]

    async def note_rows(self, connection: Connection, import_id: int, rows: Sequence[Planned]) -> None:
        """Enqueue the rows' messages and note the rows. Raises DatabaseRefused for all, if one message is faulty."""
        ids = await enqueue_many(connection, [row.message for row in rows], schema=self._schema)  # type: ignore[misc]
        await connection.execute(
            self._sql("imports/note_rows"),
            import_id,
            [row.identity for row in rows],
            ids,
            [row.namespace for row in rows],
            [row.workflow_id for row in rows],
            [row.workflow for row in rows],
        )

    async def message_faults(self, messages: Sequence[dict[str, Any]]) -> dict[int, str]:
        """Why PostgreSQL would refuse messages, by their places in the sequence."""
        try:
            async with self._errors("look for faults"):
                rows = await self._pool.fetch(self._sql("imports/message_faults"), orjson.dumps(messages).decode())
        except DatabaseRefused as error:
            if not is_for_values(error):
                raise
            if len(messages) == 1:
                return {0: str(error).removeprefix("look for faults: ")}
            # One of them is too much for the statement itself, nested too deeply for instance.
            alone = [await self.message_faults([message]) for message in messages]
            return {place: fault[0] for place, fault in enumerate(alone) if fault}
        return {row["place"]: row["fault"] for row in rows}

    async def imported_rows(self, import_id: int, after: str, limit: int) -> list[Moved]:
        """A page of the rows that were moved, in the order of their identities as text."""
        async with self._errors("read the rows that were moved"):
            rows = await self._pool.fetch(self._sql("imports/imported_rows"), import_id, after, limit)
        return [Moved._make(row) for row in rows]

    async def begin_rollback(self, import_id: int) -> int | None:
        """Stop all moves of this import's rows. Return the rollback's number, None if the import is gone."""
        async with self._errors("begin the rollback"):
            number: int | None = await self._pool.fetchval(self._sql("imports/begin_rollback"), import_id)
        return number

    async def take_back(
        self, connection: Connection, import_id: int, identities: Sequence[str], settled: Sequence[bool]
    ) -> set[str]:
        """Take rows back, each with whether its message was seen settled; return those of which that still held."""
        rows = await connection.fetch(self._sql("imports/take_back"), import_id, identities, settled)
        return {row["identity"] for row in rows}

    async def enqueue(self, connection: Connection, messages: Sequence[dict[str, Any]]) -> None:
        """Enqueue further messages in the same transaction."""
        await enqueue_many(connection, messages, schema=self._schema)  # type: ignore[arg-type]

    async def end_rollback(self, import_id: int, number: int) -> None:
        """Forget an import that has no rows any more; let any other be run again. Nothing, if another one has begun."""
        async with self._errors("end the rollback"):
            await self._pool.execute(self._sql("imports/end_rollback"), import_id, number)


def is_for_values(error: DatabaseRefused) -> bool:
    """Whether the database refused values, or found them too much, and not the statement or a right."""
    return error.blames_values or error.sqlstate.startswith("54")
