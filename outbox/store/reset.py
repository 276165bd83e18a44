"""Makes an outbox as if it were new: by emptying its tables, or by dropping its schema and making it again.

Emptying leaves what others have made around the tables: rights, captures, publications, views. Dropping does not, and
is for a schema that this version cannot work with. Either is one transaction.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from outbox.model.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, SchemaError
from outbox.model.schema_name import validated_schema
from outbox.postgres.address import Where
from outbox.postgres.connect import connected
from outbox.postgres.errors import translated_errors
from outbox.store.migrations import bring_up, keep_others_out, require_current
from outbox.store.sql import in_schema, migrations, query

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

COUNTED = 1_000_000
_COUNT_TIMEOUT_S = 60.0
_LOCK_TIMEOUT_S = 10
_LOCK_WORKERS = "lock table outbox.worker in share row exclusive mode"


@dataclass(frozen=True, slots=True)
class ResetPreview:
    """What a reset would find."""

    database: str
    """The database's own name."""
    there: bool
    """Whether it has the schema at all."""
    counts: dict[str, Any] | None
    """The result of `reset/stock.sql`; None if that cannot be read."""
    living: list[str]
    """Names of workers that run."""
    bystanders: list[str]
    """What others have made, and would go with the schema."""


async def look(dsn: Where, schema: str, *, drop_schema: bool) -> ResetPreview:
    """Say what a reset would destroy, changing nothing. Raises SchemaError where emptying alone is not possible."""
    validated_schema(schema)
    async with connected(dsn, application_name="outbox reset") as connection:
        with translated_errors("reset"):
            if not drop_schema:
                await _require_current(connection, schema)
            name = await connection.fetchval("select current_database()")
            if await connection.fetchval("select to_regnamespace($1) is null", schema):
                return ResetPreview(name, there=False, counts=None, living=[], bystanders=[])
            counts, living = await _read(connection, schema)
            bystanders = await _bystanders(connection, schema) if drop_schema else []
            return ResetPreview(name, there=True, counts=counts, living=living, bystanders=bystanders)


async def empty(dsn: Where, schema: str, *, force: bool) -> None:
    """Empty the outbox. Workers that run are refused, or with `force` left in the register, to go on.

    Raises ConfigurationError for such workers, and DatabaseUnavailable if another transaction is in the way.
    """
    async with _alone(dsn, schema) as connection:
        await _require_current(connection, schema)
        await connection.execute(in_schema(_LOCK_WORKERS, schema))  # from here on no worker enters the register
        living = await connection.fetch(query("reset/living_workers", schema))
        if not force:
            refuse_living([row["name"] for row in living])
        await connection.execute(query("reset/empty", schema))
        await connection.execute(query("reset/forget_other_workers", schema), [row["worker_id"] for row in living])


async def renew(dsn: Where, schema: str, *, force: bool) -> None:
    """Drop the schema with everything that depends on it, and make it again. Raises as `empty` does."""
    async with _alone(dsn, schema) as connection:
        if not force:
            _, living = await _read(connection, schema)
            refuse_living(living)
        await connection.execute(f"drop schema if exists {schema} cascade")
        await bring_up(connection, schema)


def refuse_living(workers: list[str]) -> None:
    """Raise ConfigurationError if any workers run."""
    if workers:
        raise ConfigurationError(
            f"nothing was done: {len(workers)} running ({', '.join(workers[:3])}{', …' if len(workers) > 3 else ''}): "
            "stop them first, or use --force to do it while they run"
        )


@asynccontextmanager
async def _alone(dsn: Where, schema: str) -> AsyncIterator[Connection]:
    """A transaction that excludes other migrations and never waits long, because all writers would wait behind it."""
    validated_schema(schema)
    async with connected(dsn, application_name="outbox reset") as connection:
        try:
            with translated_errors("reset"):
                async with connection.transaction(isolation="read_committed"):
                    await keep_others_out(connection, schema)
                    await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_S}s'")
                    yield connection
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable(f"{error}; nothing was done: does a long transaction use the outbox?") from error


async def _require_current(connection: Connection, schema: str) -> None:
    """Raise SchemaError unless the schema is exactly this version's: a newer one may have tables unknown here."""
    cure = "or make it again: `outbox reset --drop-schema`"
    try:
        newer = await require_current(connection, schema)
    except SchemaError as error:
        if "--drop-schema" in str(error):
            raise
        raise SchemaError(f"{error}, {cure}") from error
    if newer:
        raise SchemaError(f"{newer}, but a reset needs the version that wrote it, {cure}")


async def _read(connection: Connection, schema: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Counts, and names of live workers; None and none if the schema cannot be read."""
    try:
        with translated_errors("reset"):
            async with connection.transaction():
                text = await connection.fetchval(query("reset/stock", schema), COUNTED + 1, timeout=_COUNT_TIMEOUT_S)
                living = await connection.fetch(query("reset/living_workers", schema))
    except DatabaseRefused:
        return None, []
    return orjson.loads(text), [row["name"] for row in living]


async def _bystanders(connection: Connection, schema: str) -> list[str]:
    ours = {"migration"}.union(*(re.findall(r"create (?:table|view) outbox\.(\w+)", m.text) for m in migrations()))
    tables = [row["relname"] for row in await connection.fetch(query("reset/tables"), schema)]
    outside = [row["name"] for row in await connection.fetch(query("reset/dependants"), schema)]
    return [f"table {schema}.{table}" for table in tables if table not in ours] + outside
