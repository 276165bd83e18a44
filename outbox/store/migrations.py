"""Brings the schema in the database to this version: forward only, all or nothing, one migrator at a time.

A migration that was applied is never edited: its checksum is recorded, and a difference is refused.

A schema may be newer than the version that meets it. Each migration says which older workers it still serves, and the
register keeps that; so workers can be rolled back, and restarted between the migration and the rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from outbox.model.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, SchemaError
from outbox.model.schema_name import DEFAULT_SCHEMA, validated_schema
from outbox.postgres.address import Where
from outbox.postgres.connect import connected, report_warnings
from outbox.postgres.errors import translated_errors
from outbox.store.sql import Migration, in_schema, migrations

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_CREATE_REGISTER = """
create table if not exists outbox.migration (
    version    integer     primary key,
    name       text        not null,
    checksum   text        not null,
    applied_at timestamptz not null default now(),
    serves     integer
)
"""
_READ_REGISTER = "select version, name, checksum, serves from outbox.migration order by version"
_ENTER = "insert into outbox.migration (version, name, checksum, serves) values ($1, $2, $3, $4)"

Line = tuple[int, str, str, int | None]
"""Of the register in the database: version, name and checksum of a migration that was applied, and what it serves.

It serves workers that know the migrations up to that version. None: only those that know the migration itself.
"""

_FIX_NAMES = "set local search_path = pg_catalog, pg_temp"
"""Migrations bind names, and a pooler does not take the session's path."""
_LOCK_REGISTER = "lock table outbox.migration in exclusive mode"
_HAS_FUNCTIONS = "select exists (select from pg_proc where pronamespace = to_regnamespace($1))"
_MADE_MEANWHILE = {"42P06", "42P07", "42710", "23505"}
"""SQLSTATEs of a schema, table or type that another transaction made at the same moment."""
_WAIT_FOR_OTHERS_S = 120


@dataclass(frozen=True, slots=True)
class Lineage:
    """A set of migrations with a register of its own."""

    folder: str
    """Its folder in `sql`."""
    command: str
    """What brings a database up to date, for people."""
    finish: str
    """Statements at the end of every run, also where nothing was pending."""
    schema: str | None = None
    """Schema that it fills, which keeps its register; None for the outbox's, under any name."""
    stands_on: Lineage | None = None
    """Another one with a schema that must be there first."""

    def name(self, schema: str) -> str:
        """The schema that it fills, where the outbox's is called `schema`."""
        return self.schema or schema


OUTBOX = Lineage(
    "migrations",
    "outbox migrate",
    "select outbox.create_history_partitions(7); select outbox.grant_roles(); select outbox.advance_sequences()",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One migration as seen from this version and this database."""

    version: int
    name: str
    state: Literal["applied", "pending", "edited", "newer", "unknown"]
    """`newer` is unknown to this version, and serves it all the same."""

    @property
    def label(self) -> str:
        """Its name among the files."""
        return f"{self.version:04d}_{self.name}"


async def migrate(
    dsn: Where, schema: str = DEFAULT_SCHEMA, lineage: Lineage = OUTBOX, *, warn: Callable[[str], None] | None = None
) -> list[Step]:
    """Apply what is pending, in one transaction, and return the steps that were applied now.

    A schema that is newer and serves this version is left as it is; then its newer steps are returned.
    `schema` is the outbox's, which the text of every lineage may name. `warn` gets the database's warnings, such as
    roles that it did not let the migrator make; a line each, and none of it keeps the schema from being this version's.

    Raises SchemaError when the database holds an edited migration or one that this version does not know.
    """
    validated_schema(schema)
    async with connected(dsn, application_name="outbox migrate") as connection:
        if warn is not None:
            report_warnings(connection, warn)
        with translated_errors("migrate"):
            await _require_utf8(connection)
            async with connection.transaction(isolation="read_committed"):
                # A waiter must see what the one before it has done, under any default isolation of the database.
                await keep_others_out(connection, schema, lineage)
                return await bring_up(connection, schema, lineage)


async def _require_utf8(connection: Connection) -> None:
    """Raise SchemaError where the database's text is not UTF-8: a byte that is none would stop every claim."""
    encoding = await connection.fetchval("select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise SchemaError(
            f"the database's encoding is {encoding}, the outbox needs UTF8: create the database with "
            "encoding 'UTF8' template template0, and move your data there"
        )


async def keep_others_out(connection: Connection, schema: str, lineage: Lineage = OUTBOX) -> None:
    """Be the only one that changes this schema until the transaction ends; wait for others that do.

    The lock is on the register, because only an owner and the functions of the schema may take it. Any login may take
    an advisory lock. A missing register is made.
    """
    own = lineage.name(schema)
    await connection.execute(_FIX_NAMES)
    await _refuse_word(connection, own)
    try:
        with translated_errors("migrate"):
            async with connection.transaction():
                await _make_register(connection, own)
    except DatabaseRefused as error:
        if error.sqlstate not in _MADE_MEANWHILE:
            raise
    await connection.execute(f"set local lock_timeout = '{_WAIT_FOR_OTHERS_S}s'")
    try:
        with translated_errors("migrate"):
            await connection.execute(in_schema(_LOCK_REGISTER, own))
    except DatabaseUnavailable as error:
        if "lock timeout" not in str(error):
            raise
        what = f"another migration or maintenance of schema {own!r} has gone on for {_WAIT_FOR_OTHERS_S} s"
        raise DatabaseUnavailable(f"migrate: {what}: end it, or wait for it") from error
    await connection.execute("set local lock_timeout = 0")


async def _make_register(connection: Connection, own: str) -> None:
    # The owner of a schema that is there may lack the right to make one, and `if not exists` asks for it.
    if await connection.fetchval("select to_regnamespace($1) is null", own):
        await connection.execute(f"create schema {own}")
    await connection.execute(in_schema(_CREATE_REGISTER, own))


async def bring_up(connection: Connection, schema: str, lineage: Lineage = OUTBOX) -> list[Step]:
    """Apply what is pending in the caller's transaction, which keeps others out, and return it. See `migrate`."""
    own = lineage.name(schema)
    await _refuse_word(connection, schema)
    if lineage.stands_on is not None:
        await require_current(connection, schema, lineage.stands_on)
    await _make_register(connection, own)
    steps = await _steps(connection, own, lineage, refuse=True)
    if newer := [step for step in steps if step.state == "newer"]:
        return newer
    pending = [step for step in steps if step.state == "pending"]
    if len(pending) == len(steps) and await connection.fetchval(_HAS_FUNCTIONS, own):
        raise SchemaError(
            f"schema {own!r} is there, but its register of migrations is empty, as after pg_dump --schema-only: "
            f"restore the rows of {own}.migration, or drop the schema and run `{lineage.command}`"
        )
    for migration in _of(pending, lineage):
        await connection.execute(in_schema(migration.text, schema))
        line = (migration.version, migration.name, migration.checksum, migration.serves)
        await connection.execute(in_schema(_ENTER, own), *line)
    await connection.execute(in_schema(lineage.finish, schema))
    return pending


async def inspect(dsn: Where, schema: str = DEFAULT_SCHEMA, lineage: Lineage = OUTBOX) -> list[Step]:
    """Return every step of either side, changing nothing."""
    validated_schema(schema)
    async with connected(dsn, application_name="outbox migrate") as connection:
        with translated_errors("read the schema version"):
            return await _steps(connection, lineage.name(schema), lineage, refuse=False)


async def require_current(
    connection: Connection, schema: str = DEFAULT_SCHEMA, lineage: Lineage = OUTBOX
) -> str | None:
    """Raise SchemaError, with the cure, unless this version can work with the database's schema. See below."""
    own = lineage.name(schema)
    with translated_errors("read the schema version"):
        register = await _register(connection, own)
    return require_register(register, schema, lineage)


def require_register(register: Iterable[Line], schema: str = DEFAULT_SCHEMA, lineage: Lineage = OUTBOX) -> str | None:
    """Raise SchemaError, with the cure, unless this version can work with a schema of this register.

    Returns None if the schema is exactly this version's, and a remark where it is newer and still serves it.
    """
    own = lineage.name(schema)
    steps = _compared(register, own, lineage, refuse=True)
    pending = [step for step in steps if step.state == "pending"]
    if len(pending) == len(steps):
        raise SchemaError(f"the database has no schema {own!r}: run `{lineage.command}`")
    if pending:
        names = ", ".join(step.label for step in pending)
        raise SchemaError(f"schema {own!r} is older than this version, {names} missing: run `{lineage.command}`")
    return remark(steps, own)


def remark(steps: Iterable[Step], schema: str) -> str | None:
    """What to say of a schema that is newer and serves this version; None if it is not newer."""
    newer = ", ".join(step.label for step in steps if step.state == "newer")
    return f"schema {schema!r} is newer than this version ({newer}), and still serves it" if newer else None


def steps_of(register: Iterable[Line], schema: str = DEFAULT_SCHEMA, lineage: Lineage = OUTBOX) -> list[Step]:
    """Every step in this register or in this version."""
    return _compared(register, lineage.name(schema), lineage, refuse=False)


async def _steps(connection: Connection, schema: str, lineage: Lineage, *, refuse: bool) -> list[Step]:
    """Compare the register in the database with the files. With `refuse`, edited and unknown migrations raise."""
    return _compared(await _register(connection, schema), schema, lineage, refuse=refuse)


async def _register(connection: Connection, schema: str) -> list[Line]:
    exists = await connection.fetchval("select to_regclass($1) is not null", f"{schema}.migration")
    rows = await connection.fetch(in_schema(_READ_REGISTER, schema)) if exists else []
    return [(row["version"], row["name"], row["checksum"], row["serves"]) for row in rows]


def _compared(register: Iterable[Line], schema: str, lineage: Lineage, *, refuse: bool) -> list[Step]:
    known = {migration.version: migration for migration in migrations(lineage.folder)}
    level = max(known)
    steps = [_applied(line, known.pop(line[0], None), level) for line in register]
    steps += [Step(migration.version, migration.name, "pending") for migration in known.values()]
    steps.sort(key=lambda step: step.version)
    if refuse:
        _refuse_unreleased(steps, schema, level)
        _refuse_strangers(steps, schema)
    return steps


def _applied(line: Line, migration: Migration | None, level: int) -> Step:
    """Judge one line of the register against the file of that version. `level` is the last one of this version."""
    version, name, checksum, serves = line
    if migration is not None and migration.name == name:
        return Step(version, name, "applied" if migration.checksum == checksum else "edited")
    return Step(version, name, "newer" if serves is not None and serves <= level < version else "unknown")


async def _refuse_word(connection: Connection, schema: str) -> None:
    """Refuse a schema name that producers would have to quote in every call, by the server's own list of words."""
    if await connection.fetchval("select quote_ident($1)", schema) != schema:
        raise ConfigurationError(f"schema {schema!r} is a word of SQL: choose another name (setting OUTBOX_SCHEMA)")


def _refuse_unreleased(steps: list[Step], schema: str, level: int) -> None:
    for step in steps:
        if step.state == "unknown" and step.version <= level:
            raise SchemaError(
                f"schema {schema!r} was made by an unreleased revision, it has migration {step.label}: "
                "use that revision, or make the schema again: `outbox reset --drop-schema`"
            )


def _refuse_strangers(steps: list[Step], schema: str) -> None:
    states = {step.state for step in steps}
    for step in steps:
        if step.state == "unknown" or (step.state == "newer" and "pending" in states):
            raise SchemaError(
                f"schema {schema!r} is newer than this version: it has migration {step.label}, "
                "which does not serve it; use the version that wrote it"
            )
        if step.state == "edited":
            raise SchemaError(
                f"migration {step.label} was edited after it was applied to schema {schema!r}: "
                "restore it, and change by a new one"
            )


def _of(steps: list[Step], lineage: Lineage) -> list[Migration]:
    versions = {step.version for step in steps}
    return [migration for migration in migrations(lineage.folder) if migration.version in versions]
