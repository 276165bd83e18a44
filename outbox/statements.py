"""What running SQL on the outbox has in common: a pool, the schema's name, and errors that are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from outbox.database import translated_errors
from outbox.errors import DatabaseReadOnly
from outbox.sqlfiles import query

if TYPE_CHECKING:
    from outbox.database import Pool


class Statements:
    """Statements on one outbox schema. Each method runs the file of its name under `sql/queries`.

    Every method may raise DatabaseUnavailable or DatabaseRefused.
    """

    def __init__(self, pool: Pool, schema: str) -> None:
        self._pool = pool
        self._schema = schema

    @asynccontextmanager
    async def _errors(self, doing: str) -> AsyncIterator[None]:
        """Translate the driver's errors; leave a server that takes no writes, so that the next statement asks anew."""
        try:
            with translated_errors(doing):
                yield
        except DatabaseReadOnly:
            await self._pool.replace_connections()
            raise

    def _sql(self, name: str) -> str:
        return query(name, self._schema)
