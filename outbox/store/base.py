"""What running SQL on the outbox has in common: a pool, the schema's name, and errors that are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import orjson

from outbox.model.blockers import Blocker, line, read
from outbox.model.errors import DatabaseReadOnly, OutboxError, StatementTimedOut
from outbox.postgres.errors import translated_errors
from outbox.store.sql import call, query

if TYPE_CHECKING:
    from outbox.postgres.connections import Connections


_BLOCKERS_WITHIN_S = 1.5


class Statements:
    """Statements on one outbox schema. Each method names its file under `sql/queries`, or the function that it calls.

    Every method may raise DatabaseUnavailable or DatabaseRefused.
    """

    def __init__(self, pool: Connections, schema: str) -> None:
        self._pool = pool
        self._schema = schema

    @asynccontextmanager
    async def _errors(self, doing: str) -> AsyncIterator[None]:
        """Translate the driver's errors; leave a server that takes no writes; say who blocks what took too long."""
        try:
            with translated_errors(doing):
                yield
        except DatabaseReadOnly:
            await self._pool.replace_connections()
            raise
        except StatementTimedOut as error:
            found = await self.blockers()
            if found:
                raise StatementTimedOut(f"{error}: {line(found)}") from error
            raise

    async def blockers(self) -> list[Blocker]:
        """Sessions that keep others from the tables at this moment; none also if that cannot be found out."""
        try:
            with translated_errors("blockers"):
                async with self._pool.acquire(timeout_s=_BLOCKERS_WITHIN_S) as connection:
                    return read(orjson.loads(await connection.fetchval(self._sql("status/blockers"))))
        except OutboxError:
            return []

    def _sql(self, name: str) -> str:
        return query(name, self._schema)

    async def _call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - a function returns any type
        """Call a function of the schema, and return the first column of its first row."""
        return await self._pool.fetchval(call(function, len(arguments), self._schema), *arguments)


def column(rows: Sequence[object], name: str) -> list[Any]:
    """Return an attribute of each row."""
    return list(map(attrgetter(name), rows))
