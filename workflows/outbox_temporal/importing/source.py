"""Reads the rows of the source: in the order of their identity, from one snapshot, and writes nothing there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from outbox.model.errors import ConfigurationError, DatabaseReadOnly, DatabaseRefused
from outbox.postgres.address import Where
from outbox.postgres.connect import connected
from outbox.postgres.errors import translated_errors
from outbox_temporal.importing.mapping import ImportMapping
from outbox_temporal.importing.rows import Row

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_ROW = "outbox_row"
"""What a row is called in our statements: a name that no column has."""
_FIRST_TIMEOUT_S = 900.0
"""For what may read and sort the whole source."""
_TIMEOUT_S = 60.0
FLAG = "--source-url"


class RowSource:
    """An open source. It ends with its connection."""

    def __init__(self, connection: Connection, relation: str, mapping: ImportMapping) -> None:
        self._connection = connection
        self._relation = relation
        self._mapping = mapping

    async def count(self) -> int:
        """How many rows there are."""
        with _query_faults(self._mapping, "count the rows"):
            found = await self._connection.fetchval(
                f"select count(*) from {self._relation} as {_ROW}",  # noqa: S608 - the user's own query
                timeout=_FIRST_TIMEOUT_S,
            )
        return int(found)

    async def batches(self, size: int) -> AsyncIterator[list[Row]]:
        """The rows, this many at a time."""
        identity = f"{_ROW}.{_quoted(self._mapping.source.identity)}"
        with _query_faults(self._mapping, "order the rows by their identity"):
            await self._connection.execute(
                f"declare outbox_rows no scroll cursor for select {identity}::text, row_to_json({_ROW})::text, "  # noqa: S608 - as above
                f"count(*) over (partition by {identity}) from {self._relation} as {_ROW} order by {identity}",
                timeout=_TIMEOUT_S,
            )
        while True:
            with _query_faults(self._mapping, "read the rows"):
                rows = await self._connection.fetch(f"fetch forward {size} from outbox_rows", timeout=_FIRST_TIMEOUT_S)
            if not rows:
                return
            yield [Row._make(row) for row in rows]


@asynccontextmanager
async def opened(mapping: ImportMapping, dsn: Where, *, foreign: bool) -> AsyncIterator[RowSource]:
    """Open the source and compare its columns with the mapping. Raises ConfigurationError for every fault at once.

    `foreign`: the connection string came from the command's own flag, so error messages name that flag.
    """
    async with _connected(dsn, foreign=foreign) as connection, _snapshot(connection):
        relation = await _relation(connection, mapping)
        with _query_faults(mapping, "look at its columns"):
            statement = await connection.prepare(f"select * from {relation} as {_ROW}", timeout=_TIMEOUT_S)  # noqa: S608 - as above
        mapping.require_columns([attribute.name for attribute in statement.get_attributes()])
        del statement
        yield RowSource(connection, relation, mapping)


@asynccontextmanager
async def _connected(dsn: Where, *, foreign: bool) -> AsyncIterator[Connection]:
    try:
        async with connected(dsn, application_name="outbox import", own_names=False) as connection:
            yield connection
    except ConfigurationError as error:
        if not foreign:
            raise
        raise ConfigurationError(*(fault.replace("DATABASE_URL", FLAG) for fault in error.faults)) from error


@asynccontextmanager
async def _snapshot(connection: Connection) -> AsyncIterator[None]:
    with translated_errors("open the source"):
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
    yield
    with translated_errors("close the source"):
        await transaction.rollback()


async def _relation(connection: Connection, mapping: ImportMapping) -> str:
    """The source as text for after `from`."""
    if mapping.query is not None:
        return f"(\n{mapping.query}\n)"
    with _query_faults(mapping, "find the table"):
        # The server reads the name as SQL would, and writes it with the quotes that it needs.
        name = await connection.fetchval("select $1::text::regclass::text", mapping.source.table, timeout=_TIMEOUT_S)
    return str(name)


@contextmanager
def _query_faults(mapping: ImportMapping, doing: str) -> Iterator[None]:
    """What PostgreSQL refuses here is the user's query: say where it is named."""
    place = mapping.at("source", "table" if mapping.query is None else "query")
    source = mapping.source.table if mapping.query is None else mapping.source.query
    try:
        with translated_errors(f"{place}: {source}: {doing}"):
            yield
    except (DatabaseRefused, DatabaseReadOnly) as error:
        raise ConfigurationError(str(error)) from error


def _quoted(column: str) -> str:
    doubled = column.replace('"', '""')
    return f'"{doubled}"'
