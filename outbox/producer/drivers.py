"""Sends a call over the caller's connection. The names of its classes show its library, which is never imported first.

Nothing here begins a transaction or ends one, and no setting of the connection is changed or relied on: row factories,
codecs, cursor classes, prepared statements.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from outbox.producer.calls import Call

if TYPE_CHECKING:
    import psycopg
    from django.db.backends.base.base import BaseDatabaseWrapper
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection as SQLAlchemyAsyncConnection


class SyncConnection(Protocol):
    """A synchronous connection or session: of psycopg, SQLAlchemy or Django."""

    def commit(self) -> None:
        """Not called here: it distinguishes this from the asynchronous ones."""

    def rollback(self) -> None:
        """Not called here either."""


class AsyncTransaction(Protocol):
    """An asynchronous connection or session: of psycopg or SQLAlchemy."""

    async def commit(self) -> None:
        """Not called here: it distinguishes this from the synchronous ones."""

    async def rollback(self) -> None:
        """Not called here either."""


class AsyncpgConnection(Protocol):
    """A connection of asyncpg, one's own or a pool's."""

    def is_in_transaction(self) -> bool:
        """Not called here: what no other library's connections have."""

    async def fetch(self, query: str, *args: object) -> Sequence[Any]:
        """Run a statement and return its rows."""


AsyncConnection: TypeAlias = AsyncTransaction | AsyncpgConnection


Texts: TypeAlias = list[str | None]
"""What a call returns, one text a row. None is SQL's null."""


def send(connection: SyncConnection | AsyncConnection, call: Call) -> Texts | Coroutine[Any, Any, Texts]:
    """Send a call. Raises TypeError for what is not an open connection of a supported library."""
    for kind in type(connection).__mro__:
        library = kind.__module__.partition(".")[0]
        if (sender := _SENDERS.get((library, kind.__name__))) is not None:
            return sender(connection, call)
    given = type(connection)
    raise TypeError(
        f"cannot enqueue over {given.__module__}.{given.__qualname__}: pass an open connection of asyncpg or psycopg 3 "
        "(Connection, AsyncConnection), a connection or session of SQLAlchemy 2 (sync or async), or Django's connection"
    )


async def _asyncpg(connection: AsyncpgConnection, call: Call) -> Texts:
    rows = await connection.fetch(call.statement("${place}"), *call.values.values())
    return [row[0] for row in rows]


def _psycopg(connection: psycopg.Connection[Any], call: Call) -> Texts:
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    # The connection's own kind of cursor might return rows of any shape and want other placeholders.
    with Cursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(call.statement("%s").encode(), tuple(call.values.values()))
        return [row[0] for row in cursor.fetchall()]


async def _psycopg_async(connection: psycopg.AsyncConnection[Any], call: Call) -> Texts:
    from psycopg import AsyncCursor
    from psycopg.rows import tuple_row

    async with AsyncCursor(connection, row_factory=tuple_row) as cursor:
        await cursor.execute(call.statement("%s").encode(), tuple(call.values.values()))
        return [row[0] for row in await cursor.fetchall()]


def _sqlalchemy(connection: Connection, call: Call) -> Texts:
    from sqlalchemy import text

    return list(connection.execute(text(call.statement(":{name}")), call.values).scalars())


async def _sqlalchemy_async(connection: SQLAlchemyAsyncConnection, call: Call) -> Texts:
    from sqlalchemy import text

    result = await connection.execute(text(call.statement(":{name}")), call.values)
    return list(result.scalars())


def _django(connection: BaseDatabaseWrapper, call: Call) -> Texts:
    with connection.cursor() as cursor:
        cursor.execute(call.statement("%s"), tuple(call.values.values()))
        return [row[0] for row in cursor.fetchall()]


_Sender: TypeAlias = Callable[[Any, Call], Texts | Coroutine[Any, Any, Texts]]
_SENDERS: dict[tuple[str, str], _Sender] = {
    ("asyncpg", "Connection"): _asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _asyncpg,
    ("psycopg", "Connection"): _psycopg,
    ("psycopg", "AsyncConnection"): _psycopg_async,
    ("sqlalchemy", "Connection"): _sqlalchemy,
    ("sqlalchemy", "Session"): _sqlalchemy,
    ("sqlalchemy", "scoped_session"): _sqlalchemy,
    ("sqlalchemy", "AsyncConnection"): _sqlalchemy_async,
    ("sqlalchemy", "AsyncSession"): _sqlalchemy_async,
    ("sqlalchemy", "async_scoped_session"): _sqlalchemy_async,
    ("django", "BaseDatabaseWrapper"): _django,
    ("django", "ConnectionProxy"): _django,
}
