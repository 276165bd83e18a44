"""Brings the schema in the database to this version: forward only, all or nothing, one migrator at a time.

A migration that was applied is never edited: its checksum is recorded, and a difference is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outbox import database
from outbox.connection import Where
from outbox.errors import ConfigurationError, SchemaError
from outbox.sqlfiles import DEFAULT_SCHEMA, Migration, in_schema, migrations, validated_schema

_CREATE_REGISTER = """
create table if not exists outbox.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now()
)
"""
_READ_REGISTER = "select version, name, checksum from outbox.migration order by version"
_ENTER = "insert into outbox.migration (version, name, checksum) values ($1, $2, $3)"

_WAIT_FOR_OTHERS_S = 120.0
_PARTITIONS_AHEAD = 7


@dataclass(frozen=True, slots=True)
class Step:
    """One migration as seen from this version and this database."""

    version: int
    name: str
    state: Literal["applied", "pending", "edited", "unknown"]


async def migrate(dsn: Where, schema: str = DEFAULT_SCHEMA) -> list[Step]:
    """Apply what is pending, in one transaction, and return the steps that were applied now.

    Raises SchemaError when the database holds an edited migration or one that this version does not know.
    """
    validated_schema(schema)
    async with database.connected(dsn, application_name="outbox migrate") as connection:
        with database.translated_errors("migrate"):
            async with connection.transaction(isolation="read_committed"):
                # A waiter must see what the one before it has done, whatever isolation the database defaults to.
                await connection.execute(
                    "select pg_advisory_xact_lock(hashtextextended($1, 0))",
                    f"outbox.migrate.{schema}",
                    timeout=_WAIT_FOR_OTHERS_S,
                )
                await _refuse_word(connection, schema)
                await connection.execute(f"create schema if not exists {schema}")
                await connection.execute(in_schema(_CREATE_REGISTER, schema))
                pending = [step for step in await _steps(connection, schema, refuse=True) if step.state == "pending"]
                for migration in _of(pending):
                    await connection.execute(in_schema(migration.text, schema))
                    await connection.execute(
                        in_schema(_ENTER, schema), migration.version, migration.name, migration.checksum
                    )
                await connection.execute(
                    in_schema("select outbox.create_history_partitions($1)", schema), _PARTITIONS_AHEAD
                )
            return pending


async def inspect(dsn: Where, schema: str = DEFAULT_SCHEMA) -> list[Step]:
    """Return every step that either side knows, changing nothing."""
    validated_schema(schema)
    async with database.connected(dsn, application_name="outbox migrate") as connection:
        with database.translated_errors("read the schema version"):
            return await _steps(connection, schema, refuse=False)


async def require_current(connection: database.Connection, schema: str = DEFAULT_SCHEMA) -> None:
    """Raise SchemaError, with the cure, unless the database's schema is exactly this version's."""
    with database.translated_errors("read the schema version"):
        steps = await _steps(connection, schema, refuse=True)
    pending = [step for step in steps if step.state == "pending"]
    if len(pending) == len(steps):
        raise SchemaError(f"the database has no outbox schema {schema!r}: run `outbox migrate`")
    if pending:
        names = ", ".join(f"{step.version:04d}_{step.name}" for step in pending)
        raise SchemaError(f"schema {schema!r} is older than this version, {names} missing: run `outbox migrate`")


async def _steps(connection: database.Connection, schema: str, *, refuse: bool) -> list[Step]:
    """Compare the register with the files. With `refuse`, edited and unknown migrations raise."""
    known = {migration.version: migration for migration in migrations()}
    exists = await connection.fetchval("select to_regclass($1) is not null", f"{schema}.migration")
    rows = await connection.fetch(in_schema(_READ_REGISTER, schema)) if exists else []
    steps = [_applied(row["version"], row["name"], row["checksum"], known.pop(row["version"], None)) for row in rows]
    steps += [Step(migration.version, migration.name, "pending") for migration in known.values()]
    steps.sort(key=lambda step: step.version)
    if refuse:
        _refuse_strangers(steps, schema)
    return steps


def _applied(version: int, name: str, checksum: str, migration: Migration | None) -> Step:
    """Judge one line of the register against the file of that version."""
    if migration is None:
        return Step(version, name, "unknown")
    return Step(version, name, "applied" if migration.checksum == checksum else "edited")


async def _refuse_word(connection: database.Connection, schema: str) -> None:
    """Refuse a schema name that producers would have to quote in every call; the server knows its own words."""
    if await connection.fetchval("select quote_ident($1)", schema) != schema:
        raise ConfigurationError(f"schema {schema!r} is a word of SQL: choose another name (setting OUTBOX_SCHEMA)")


def _refuse_strangers(steps: list[Step], schema: str) -> None:
    for step in steps:
        label = f"migration {step.version:04d}_{step.name}"
        if step.state == "unknown":
            raise SchemaError(
                f"schema {schema!r} is newer than this version: it has {label}; use the version that wrote it"
            )
        if step.state == "edited":
            raise SchemaError(
                f"{label} was edited after it was applied to schema {schema!r}: restore it, and change by a new one"
            )


def _of(steps: list[Step]) -> list[Migration]:
    versions = {step.version for step in steps}
    return [migration for migration in migrations() if migration.version in versions]
