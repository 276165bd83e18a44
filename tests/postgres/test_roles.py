"""The three roles that come with the schema: each does its work, and is refused everything else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import asyncpg
import pytest

from outbox import producer
from outbox.model.errors import DatabaseRefused
from outbox.model.finding import quoted
from outbox.model.message import Pause
from outbox.postgres.pool import open_pool
from outbox.store.dead_letters import DeadLetters
from outbox.store.messages import Burial, Store
from outbox.store.migrations import migrate
from outbox.store.rules import Rules
from outbox.store.sql import query
from outbox.store.workers import Workers
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.examining import examined
from tests.support.processes import worker_process
from tests.support.running import fetch
from tests.support.sql import connected

PRODUCER, WORKER, READER = "producer", "worker", "reader"
ROLES = (PRODUCER, WORKER, READER)
every_role = pytest.mark.parametrize("role", ROLES)

READ = {"select"}
CHANGED = {"select", "insert", "update", "delete"}
RELATIONS = {
    "migration": {PRODUCER: READ, WORKER: READ, READER: READ},
    "home": {WORKER: READ, READER: READ},
    "uptime": {WORKER: READ | {"insert"}, READER: READ},
    "history": {WORKER: READ | {"insert"}, READER: READ},
    "history_default": {WORKER: READ, READER: READ},
    "retention": {},
    **dict.fromkeys(("message_life", "captures", "capture_trigger"), {WORKER: READ, READER: READ}),
    **dict.fromkeys(
        (
            "message",
            "dead_letter",
            "delivered_key",
            "worker",
            "control",
            "pause",
            "topic_limit",
            "ended_rule",
            "import",
            "imported",
        ),
        {WORKER: CHANGED, READER: READ},
    ),
}
"""What each role may do to each table and view; the daily partitions are reached through `history` alone."""
VISIBLE_TO_ALL = {"captures", "capture_trigger"}
"""They show what the catalogue shows to every login, if the login may use the schema."""

FUNCTIONS = {
    **dict.fromkeys(
        (
            *("enqueue", "enqueue_many", "start_workflow", "signal_workflow", "signal_with_start_workflow"),
            *("cancel_workflow", "terminate_workflow", "cancel"),
            *("arguments", "seconds", "scoped", "refuse", "new_message_id", "due_at", "lane", "check_message"),
            *(
                "check_name",
                "check_names",
                "check_values",
                "check_target",
                "check_same",
                "check_names_of_target",
                "check_word",
            ),
            *(
                "check_types",
                "check_policies",
                "check_objects",
                "check_retry_policy",
                "check_time",
                "check_interval",
                "check_durations",
            ),
            *("check_large", "check_depth"),
            *("check_escapes", "check_parts", "check_headers", "check_search_attributes"),
        ),
        {PRODUCER, WORKER},
    ),
    **dict.fromkeys(
        (
            *(
                "capture",
                "uncapture",
                "lock_name",
                "check_capture",
                "check_expressions",
                "capture_operations",
                "capture_rows",
            ),
            *("capture_fault", "capture_columns", "capture_body", "write_capture", "drop_captures"),
            "drop_unused_capture_functions",
        ),
        {PRODUCER},
    ),
    **dict.fromkeys(
        ("dead_letters", "matches", "probe", "recent", "broadcast_fault", "sequences", "droppable", "may_own"),
        {WORKER, READER},
    ),
    **dict.fromkeys(
        (
            *("wake", "take_from_limit", "call_sleepers", "create_history_partitions", "old_history_partitions"),
            *("drop_history_partition", "drop_history_partitions", "delete_stray_history"),
            *(
                "set_switch",
                "pause",
                "resume",
                "check_pattern",
                "limit_topic",
                "new_rule_id",
                "change_alone",
                "commit_durably",
                "fault_of_message",
            ),
            *("note_uptime", "expiry", "look_home", "adopt"),
        ),
        {WORKER},
    ),
    **dict.fromkeys(("home_fault", "place", "claim_may_be_lost"), {WORKER, READER}),
    **dict.fromkeys(("enable_broadcast", "delivered_lately", "lock_key", "add_once"), set()),
    **dict.fromkeys(
        ("rights", "wanted_grants", "grant_roles", "advance_sequences", "keep_history", "may_cancel", "scope_keys"),
        set(),
    ),
    # Triggers', which are never called directly.
    **dict.fromkeys(("ring", "durable", "tell_switch", "call_next", "broadcast"), set()),
}
"""Who may call each function."""

UTILITIES = {"reset/empty"}
"""What cannot be explained, and is the owner's alone (`truncate`)."""
_FILES = (Path(__file__).parents[2] / "sql" / "queries").glob("*/*.sql")
QUERIES = {f"{path.parent.name}/{path.stem}" for path in _FILES} - UTILITIES
CATALOGUE = {
    *("doctor/grants", "doctor/housekeeping", "doctor/server", "doctor/wakeups"),
    *("reset/dependants", "reset/tables", "status/blockers"),
}
"""Statements on what PostgreSQL shows to every login."""
MAY_RUN = {
    PRODUCER: {"status/applied_migrations", "audit/clock"} | CATALOGUE,
    WORKER: QUERIES,
    READER: {
        "audit/clock",
        "audit/extent",
        "audit/lookup",
        "audit/messages",
        "claim/outlook",
        "dead_letters/find",
        "dead_letters/read",
        "dead_letters/totals",
        "doctor/broadcast",
        "doctor/demand",
        "doctor/sequences",
        "imports/imported_rows",
        "imports/known_rows",
        "imports/pending_ends",
        "imports/read",
        "presence/absent",
        "presence/has_presence",
        "reset/living_workers",
        "reset/stock",
        "rules/control",
        "status/applied_migrations",
        "status/completed",
        "status/dead_letters",
        "status/errors",
        "status/facts",
        "status/find",
        "status/messages",
        "status/rules",
        "status/workers",
    }
    | CATALOGUE,
}
"""The statements of this package that each role may run."""

FORBIDDEN = {
    PRODUCER: [
        "select payload from outbox.message",
        "select * from outbox.dead_letter",
        "delete from outbox.message",
        "select * from outbox.message_life",
        "insert into outbox.message (message_id, due_at, available_at, created_at, topic) "
        "values (gen_random_uuid(), now(), now(), now(), 't')",
        "set role outbox_worker",
    ],
    WORKER: [
        "truncate outbox.message",
        "drop table outbox.history_default",
        "alter table outbox.message add column mine int",
        "drop trigger wakeup on outbox.message",
        "alter table outbox.message disable trigger wakeup",
        "create table outbox.mine ()",
        "create function outbox.mine() returns int language sql as 'select 1'",
        "create schema mine",
        "insert into outbox.migration values (9999, 'mine', '')",
        "delete from outbox.history",
        "select * from shop.customers",
        "select outbox.enable_broadcast()",
        "grant outbox_worker to outbox_reader",
    ],
    READER: [
        "select outbox.enqueue('t')",
        "select outbox.cancel(gen_random_uuid())",
        "select outbox.pause()",
        "select outbox.set_switch('mode', '\"poll\"')",
        "select * from outbox.message for update",
        "select * from shop.customers",
        "create table outbox.mine ()",
    ],
}


@dataclass(frozen=True)
class Logins:
    """A database's owner, and a login for each role of its outbox."""

    owner: str
    producer: str
    worker: str
    reader: str

    def of(self, role: str) -> str:
        """The DSN of the login with this role."""
        dsn: str = getattr(self, role)
        return dsn


def as_user(dsn: str, name: str) -> str:
    return dsn.replace("postgres@", f"{name}@")


@asynccontextmanager
async def login(dsn: str, *attributes: str) -> AsyncIterator[str]:
    """A role that may log in, for the block; roles are the whole server's."""
    name = f"login_{uuid4().hex[:12]}"
    await fetch(dsn, f"create role {name} login {' '.join(attributes)}")
    try:
        yield as_user(dsn, name)
    finally:
        await fetch(dsn, f"drop owned by {name} cascade")
        await fetch(dsn, f"drop role {name}")


@asynccontextmanager
async def logins_for(dsn: str, schema: str = "outbox") -> AsyncIterator[Logins]:
    async with (
        login(dsn, f"in role {schema}_producer") as producing,
        login(dsn, f"in role {schema}_worker") as working,
        login(dsn, f"in role {schema}_reader") as reading,
    ):
        yield Logins(dsn, producing, working, reading)


@pytest.fixture
async def logins(database: str) -> AsyncIterator[Logins]:
    """A login for each role, and data of another application in the same database."""
    await fetch(database, "create schema shop")
    await fetch(database, "create table shop.customers (id int, name text)")
    async with logins_for(database) as made:
        yield made


def new_schema() -> str:
    """A name without roles on this server."""
    return f"s{uuid4().hex[:12]}"


async def is_refused(connection: asyncpg.Connection, statement: str, *arguments: object) -> bool:
    """Whether the statement fails for want of a right; nothing of it stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement, *arguments)
    except asyncpg.InsufficientPrivilegeError:
        return True
    except asyncpg.PostgresError:
        return False
    else:
        return False
    finally:
        await transaction.rollback()


# What each may do, exactly


async def test_every_function_is_granted_to_the_roles_that_need_it_and_none_to_public(logins: Logins) -> None:
    """A new function: decide which roles it is for, in outbox.rights() and in FUNCTIONS."""
    found = await fetch(
        logins.owner,
        """
        select p.proname as name, p.prorettype = 'trigger'::regtype as of_trigger,
               array(select r from unnest($1::text[]) as r where has_function_privilege('outbox_' || r, p.oid, 'execute')) as able
        from pg_proc p where p.pronamespace = 'outbox'::regnamespace
        """,
        ROLES,
    )
    assert {row["name"]: set(row["able"]) for row in found} == FUNCTIONS


@every_role
async def test_a_role_is_refused_every_function_that_is_not_for_it(logins: Logins, role: str) -> None:
    calls = await fetch(
        logins.owner,
        """
        select p.proname as name,
               format('select * from outbox.%I(%s)', p.proname, (select string_agg('null::' || format_type(t.oid, null), ', ' order by a.place)
                      from unnest(p.proargtypes) with ordinality as a (type, place) join pg_type t on t.oid = a.type)) as call
        from pg_proc p where p.pronamespace = 'outbox'::regnamespace and p.prorettype <> 'trigger'::regtype and not p.proisstrict
        """,
    )
    async with connected(logins.of(role)) as connection:
        let_in = [
            row["name"]
            for row in calls
            if role not in FUNCTIONS[row["name"]] and not await is_refused(connection, row["call"])
        ]
    assert let_in == []
    strict = "select proname, has_function_privilege($1, oid, 'execute') from pg_proc where pronamespace = 'outbox'::regnamespace and proisstrict"
    user = (await fetch(logins.of(role), "select current_user"))[0][0]
    for name, may in await fetch(logins.owner, strict, user):  # with nulls they would not be called
        assert may == (role in FUNCTIONS[name])


@every_role
async def test_a_role_may_do_to_each_table_what_it_needs_and_nothing_else(logins: Logins, role: str) -> None:
    tables = await fetch(
        logins.owner,
        """
        select c.relname as name, c.relkind in ('r', 'p') as written,
               (select quote_ident(a.attname) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and a.attidentity = '' limit 1) as field
        from pg_class c
        where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname !~ '^history_2'
        """,
    )
    attempts = {
        "select": "select {field} from outbox.{name} limit 0",
        "insert": "insert into outbox.{name} ({field}) select null where false",
        "update": "update outbox.{name} set {field} = default where false",
        "delete": "delete from outbox.{name} where false",
        "truncate": "truncate outbox.{name} cascade",
    }
    able: dict[str, set[str]] = {}
    async with connected(logins.of(role)) as connection:
        for table in tables:
            tried = attempts if table["written"] else {"select": attempts["select"]}
            able[table["name"]] = {
                what
                for what, statement in tried.items()
                if not await is_refused(connection, statement.format(**dict(table)))
            }
    wanted = {name: grants.get(role, READ if name in VISIBLE_TO_ALL else set()) for name, grants in RELATIONS.items()}
    assert able == wanted


@every_role
async def test_a_role_may_run_the_statements_of_its_work_and_no_others(logins: Logins, role: str) -> None:
    """Explaining a statement asks for every right that running it takes, those of the functions it calls included."""
    refused = set()
    async with connected(logins.of(role)) as connection:
        for name in QUERIES:
            try:
                statement = await connection.prepare(query(name))
                await statement.explain(*[None] * len(statement.get_parameters()))
            except asyncpg.InsufficientPrivilegeError:
                refused.add(name)
    assert QUERIES - refused == MAY_RUN[role]


@pytest.mark.parametrize(("role", "statement"), [(role, each) for role in ROLES for each in FORBIDDEN[role]])
async def test_a_role_is_refused(logins: Logins, role: str, statement: str) -> None:
    async with connected(logins.of(role)) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@every_role
async def test_a_role_may_not_migrate(logins: Logins, role: str) -> None:
    with pytest.raises(DatabaseRefused, match="permission denied"):
        await migrate(logins.of(role))


# Each at its work


async def test_a_producer_produces_from_sql_and_python_and_takes_back(logins: Logins) -> None:
    async with connected(logins.producer) as connection, connection.transaction():
        taken_back = await connection.fetchval(
            "select outbox.enqueue('a', dedup_key => 'd', key => 'k', commit_order => true)"
        )
        assert await connection.fetchval("select outbox.enqueue('a', dedup_key => 'd')") == taken_back
        assert await connection.fetchval("select outbox.cancel($1)", taken_back)
        await connection.execute("select outbox.start_workflow('W', 'w'), outbox.signal_workflow('w', 's')")
        await connection.execute("select outbox.signal_with_start_workflow('W', 'w', 's')")
        await connection.execute("select outbox.cancel_workflow('w'), outbox.terminate_workflow('w')")
        await producer.enqueue(connection, "topic", {"n": 1}, tenant="t")
        await producer.enqueue_many(connection, [{"topic": "one"}, {"topic": "two", "dedup_key": "d"}])
        await producer.start_workflow(connection, "W", "w-2", input={"n": 1})
        await producer.signal_workflow(connection, "w-2", "s")
        with pytest.raises(asyncpg.InvalidParameterValueError, match="topic must not be empty"):
            async with connection.transaction():
                await connection.execute("select outbox.enqueue('')")
    assert (await outbox(logins.producer, "enqueue", "from.the.shell")).code == 0
    assert await topics(logins.owner) == [
        *("W", "s", "W", "cancel_workflow", "terminate_workflow", "topic", "one", "two", "W", "s", "from.the.shell")
    ]


async def test_a_producer_writes_to_a_captured_table(logins: Logins) -> None:
    await fetch(logins.owner, "select outbox.capture('shop.customers', 'new.name', key => 'new.id')")
    user = await fetch(logins.producer, "select current_user")
    await fetch(logins.owner, f"grant usage on schema shop to {user[0][0]}")
    await fetch(logins.owner, f"grant insert on shop.customers to {user[0][0]}")
    await fetch(logins.producer, "insert into shop.customers values (1, 'ada')")
    assert await topics(logins.owner) == ["ada"]


async def test_a_producer_cannot_put_names_of_his_own_into_what_runs_as_the_owner(logins: Logins) -> None:
    async with connected(logins.owner) as owner:
        await owner.execute("""
            create schema evil;
            grant usage on schema evil to public;
            create function evil.octet_length(text) returns int language plpgsql as $$ begin raise 'evil %', current_user; end $$;
            create function evil.taken(uuid, uuid) returns bool language plpgsql as $$ begin raise 'evil %', current_user; end $$;
            create operator evil.= (leftarg = uuid, rightarg = uuid, function = evil.taken);
        """)
    async with connected(logins.producer) as connection:
        await connection.execute("set search_path = evil, pg_catalog; create temp table message (x int)")
        with pytest.raises(asyncpg.RaiseError, match="evil"):
            await connection.execute("select octet_length('x')")
        taken_back = await connection.fetchval("select outbox.enqueue('t', dedup_key => 'd')")
        await connection.execute("select outbox.enqueue('t', dedup_key => 'd')")
        await connection.execute('select * from outbox.enqueue_many(\'[{"topic": "t"}]\')')
        assert await connection.fetchval("select outbox.cancel($1)", taken_back)


async def test_a_worker_does_all_that_outbox_run_does(logins: Logins, tmp_path: Path) -> None:
    """Delivers, keeps the history's partitions, shows its presence, hears notifications, drains."""
    async with connected(logins.owner) as owner:
        await owner.execute("select outbox.drop_history_partitions(1, now() + interval '1 year')")
        old = await owner.fetchval("select outbox.create_history_partitions(0, now() - interval '60 days')")
        await owner.execute("select outbox.limit_topic('limited', 100)")
        chosen = {"OUTBOX_SINK": "tests.support.sinks:null_sink", "DATABASE_URL": logins.worker}
        with worker_process(tmp_path, "relay", **chosen) as relay:
            await relay.logged("wake-up source subscribed")
            await fetch(logins.producer, "select outbox.enqueue('plain', dedup_key => 'd'), outbox.enqueue('limited')")
            await fetch(logins.producer, "select outbox.enqueue('keyed', key => 'k') from generate_series(1, 3)")
            await eventually(lambda: owner.fetchval("select count(*) from outbox.history"), lambda n: n == 5)
            await relay.logged("presence shown")
            parts = "select array_agg(inhrelid::regclass::text) from pg_inherits where inhparent = 'outbox.history'::regclass"
            await eventually(
                lambda: owner.fetchval(parts), lambda found: len(found) >= 5
            )  # the default, today, three ahead
            assert f"outbox.{old}" not in await owner.fetchval(parts)
            assert relay.stop() == 0
        assert await owner.fetchval("select array_agg(state) from outbox.worker") == ["stopped"]
    assert "permission denied" not in relay.log.read_text()
    assert relay.lines("maintenance failed, will try again") == []


async def test_logins_with_the_worker_role_operate_and_with_the_reader_role_only_read(logins: Logins) -> None:
    async with connected(logins.owner) as owner:
        dead = str(await owner.fetchval(bury()))
    requeue = ["dead", "requeue", dead, "--yes", "--retention", "3d"]
    refused = await outbox(logins.reader, *requeue)
    cause, cure = "requeue: permission denied for table dead_letter", "`outbox doctor` examines the outbox's grants"
    assert (refused.code, refused.fault) == (1, f"{cause}: {cure}")
    said: list[str] = []

    async def look(*arguments: str) -> None:
        done = await outbox(logins.reader, *arguments)
        assert done.code == 0, done
        said.append(done.out)

    async with anyio.create_task_group() as tasks:
        for arguments in (["status"], ["dead", "list"], ["dead", "show", dead], ["find", dead]):
            tasks.start_soon(look, *arguments)
    assert sum(dead in text for text in said) == 3
    assert (await outbox(logins.worker, *requeue)).code == 0
    async with open_pool(logins.worker, size=1, application_name="test", statement_timeout_s=30) as pool:
        await Rules(pool, "outbox").pause(Pause("p.*", None))
        assert await Rules(pool, "outbox").resume(Pause("p.*", None))
        await Rules(pool, "outbox").limit_topic("l", 5.0, None)
        await Rules(pool, "outbox").set_switch("mode", "poll")
    assert len(await fetch(logins.worker, query("dead_letters/cancel"), [dead])) == 1


@pytest.mark.parametrize("role", [WORKER, READER])
async def test_doctor_examines_all_and_says_what_its_login_lacks_to_be_a_relays(logins: Logins, role: str) -> None:
    done = await outbox(logins.of(role), "doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.out)["findings"]}
    assert not [finding for finding in findings.values() if "permission denied" in finding["detail"]]
    assert findings["grants"]["grade"] == ("good" if role == WORKER else "fault")
    assert role == WORKER or "outbox_worker" in findings["grants"]["cure"]


async def test_row_level_security_hides_nothing_from_the_roles(logins: Logins) -> None:
    async with connected(logins.owner) as owner:
        for name in ("message", "history", "dead_letter", "worker", "control", "migration"):
            await owner.execute(f"alter table outbox.{name} enable row level security")
    await fetch(logins.producer, "select outbox.enqueue('t')")
    assert len(await fetch(logins.producer, "select from outbox.migration")) > 0
    for dsn in (logins.worker, logins.reader):
        assert len(await fetch(dsn, "select from outbox.message")) == 1
    await fetch(logins.worker, "update outbox.message set priority = 1")
    await fetch(logins.worker, query("presence/register"), "name", "version", "{}")
    assert len(await fetch(logins.reader, "select from outbox.worker")) == 1


# Where the roles come from


async def test_another_schema_has_roles_of_its_own(logins: Logins) -> None:
    schema = new_schema()
    await migrate(logins.owner, schema)
    async with logins_for(logins.owner, schema) as theirs:
        await fetch(theirs.producer, f"select {schema}.start_workflow('W', 'w')")
        assert len(await fetch(theirs.reader, f"select from {schema}.message")) == 1
        for dsn, statement in (
            (theirs.producer, "select outbox.enqueue('t')"),
            (theirs.worker, "select from outbox.message"),
            (logins.producer, f"select {schema}.enqueue('t')"),
            (logins.reader, f"select from {schema}.message"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await fetch(dsn, statement)


async def test_two_databases_that_make_the_same_role_at_once_both_migrate(database: str, empty_database: str) -> None:
    schema = new_schema()
    async with connected(database) as first, connected(empty_database) as observer:
        faster = first.transaction()
        await faster.start()
        await first.execute(f"create role {schema}_producer; create role {schema}_reader; create role {schema}_worker")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(migrate, empty_database, schema)
            waits = "select count(*) > 0 from pg_locks where not granted and locktype = 'transactionid'"
            await eventually(lambda: observer.fetchval(waits), bool)
            await faster.commit()
    assert await migrate(database, schema) != []
    for dsn in (database, empty_database):
        async with logins_for(dsn, schema) as made:
            await fetch(made.producer, f"select {schema}.enqueue('t')")
            assert len(await fetch(made.worker, f"select from {schema}.message")) == 1


async def test_login_that_may_not_make_roles_migrates_and_sees_what_is_missing(empty_database: str) -> None:
    schema = new_schema()
    roles = ", ".join(f"{schema}_{role}" for role in sorted(ROLES))
    async with login(empty_database) as limited:
        [[name]] = await fetch(limited, "select current_user")
        await fetch(empty_database, f"create schema {schema} authorization {name}")
        done = await outbox(limited, "migrate", OUTBOX_SCHEMA=schema)
        assert done.code == 0
        [reported] = done.err.splitlines()
        assert f"may not make roles, so these are missing: {roles}: " in reported
        assert f"create role {schema}_worker" in reported
        assert "run outbox migrate again" in reported
        await fetch(limited, f"select {schema}.enqueue('t')")  # owners need no role
        for statement in reported.partition("administrator run: ")[2].split("; ")[: len(ROLES)]:
            await fetch(empty_database, statement)
        warnings: list[str] = []
        assert await migrate(limited, schema, warn=warnings.append) == []
        assert warnings == []
        async with logins_for(empty_database, schema) as made:
            await fetch(made.producer, f"select {schema}.enqueue('t')")
            assert len(await fetch(made.reader, f"select from {schema}.message")) == 2
            await fetch(made.worker, f"select * from {schema}.create_history_partitions(9)")
            await fetch(made.worker, f"select * from {schema}.drop_history_partitions(1)")


async def test_migrating_again_takes_what_is_new_from_everyone_and_gives_what_was_taken(logins: Logins) -> None:
    await fetch(logins.owner, "create function outbox.later() returns int language sql as 'select 1'")
    await fetch(logins.owner, "revoke all on outbox.message from outbox_reader")
    assert await fetch(logins.producer, "select outbox.later()")
    assert await migrate(logins.owner) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(logins.producer, "select outbox.later()")
    assert await fetch(logins.reader, "select from outbox.message") == []
    assert await fetch(logins.owner, "select outbox.wanted_grants()") == []


async def test_a_schema_that_was_dropped_comes_again_with_its_rights(logins: Logins) -> None:
    await fetch(logins.owner, "drop schema outbox cascade")
    await migrate(logins.owner)
    await fetch(logins.producer, "select outbox.enqueue('t')")
    assert len(await fetch(logins.worker, "select from outbox.message")) == 1


def bury() -> str:
    """A dead letter, made by hand."""
    return """
        insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts, priority,
                                        reason, topic, headers, errors)
        values (gen_random_uuid(), 1, now(), now(), now(), now(), 1, 1, 0, 'rejected', 't', '{}',
                jsonb_build_array(jsonb_build_object('at', now(), 'kind', 'K', 'detail', 'd', 'counted', true)))
        returning message_id
    """


async def topics(dsn: str) -> list[str]:
    return [row[0] for row in await fetch(dsn, "select topic from outbox.message order by seq")]


# Names that others plant


async def test_every_function_fixes_its_search_path_or_is_only_called_by_one_that_does(logins: Logins) -> None:
    await fetch(logins.owner, "select outbox.capture('shop.customers', 'new.name', key => 'new.id')")
    rows = await fetch(
        logins.owner,
        """
        select p.proname as name, p.prosrc as body, p.prosqlbody is not null as bound, coalesce(p.proargnames[1], '') as first,
               'search_path=pg_catalog, pg_temp' = any (coalesce(p.proconfig, '{}')) as fixed
        from pg_proc p where p.pronamespace = 'outbox'::regnamespace
        """,
    )
    loose = {row["name"] for row in rows if not row["bound"] and not row["fixed"]}
    assert loose == {row["name"] for row in rows if row["first"] == "place"} | {"refuse"}
    # What is bound runs in its caller's search_path, so it must not call one of these.
    definitions = await fetch(
        logins.owner,
        "select proname, pg_get_functiondef(oid) from pg_proc where pronamespace = 'outbox'::regnamespace and prosqlbody is not null",
    )
    assert len(definitions) > 10
    assert not [(name, each) for name, text in definitions for each in loose if f"outbox.{each}(" in text]


async def test_a_planted_operator_is_not_called_by_a_superusers_pause(logins: Logins) -> None:
    async with connected(logins.owner) as owner:
        await owner.execute("""
            create function public.caught(name, name) returns text language plpgsql as $$ begin raise 'caught %', current_user; end $$;
            create operator public.|| (leftarg = name, rightarg = name, function = public.caught);
        """)
        with pytest.raises(asyncpg.RaiseError, match="caught"):
            await owner.execute("select 'a'::name || '_b'")
        await owner.execute("set search_path = public, pg_catalog")
        await owner.execute("select outbox.pause('a'), outbox.set_switch('mode', '\"poll\"'), outbox.enqueue('t')")
        await owner.execute("select outbox.resume('a'), outbox.wake(), outbox.probe(), outbox.limit_topic('t', 1)")


# What a worker's login may not do to the history


async def test_a_workers_login_drops_no_history_that_the_owner_keeps(logins: Logins) -> None:
    async with connected(logins.owner) as owner, connected(logins.worker) as worker:
        for days in (20, 40):
            await owner.execute(f"select outbox.create_history_partitions(0, now() - interval '{days} days')")
        await owner.execute("""
            insert into outbox.history (message_id, seq, created_at, available_at, settled_at, deliveries, attempts, outcome, topic)
            select gen_random_uuid(), 1, at, at, at, 1, 0, 'delivered', 't' from (select now() - interval '10 days' as at) a
        """)
        parts = "select array_agg(inhrelid::regclass::text order by inhrelid::regclass::text) from pg_inherits where inhparent = 'outbox.history'::regclass and inhrelid <> 'outbox.history_default'::regclass"
        young = (await owner.fetchval(parts))[1:]
        assert len(await worker.fetch("select outbox.drop_history_partitions(1, '2200-01-01')")) == 1
        for part in young:
            assert not await worker.fetchval(
                "select outbox.drop_history_partition($1, 'infinity')", part.removeprefix("outbox.")
            )
        assert await worker.fetchval("select outbox.delete_stray_history('2200-01-01')") == 0
        assert await owner.fetchval(parts) == young
        assert await owner.fetchval("select count(*) from outbox.history") == 1
        await owner.execute("select outbox.keep_history(15)")
        assert len(await worker.fetch("select outbox.drop_history_partitions(15)")) == 1
        assert len(await owner.fetch("select outbox.drop_history_partitions(1, '2200-01-01')")) == len(young) - 1


async def test_a_workers_login_makes_partitions_of_the_coming_days_only(logins: Logins) -> None:
    async with connected(logins.worker) as worker:
        with pytest.raises(asyncpg.InvalidParameterValueError, match="days_ahead is 3000, it must be at most 100"):
            await worker.execute("select outbox.create_history_partitions(3000)")
        assert await worker.fetch("select outbox.create_history_partitions(3, '2100-01-01')") == []  # they are there
    assert not await fetch(logins.owner, "select from pg_class where relname ~ '^history_2100'")


# Producers among themselves


@pytest.fixture
async def other(logins: Logins) -> AsyncIterator[str]:
    """Another application's login."""
    async with login(logins.owner, "in role outbox_producer") as dsn:
        yield dsn


async def test_a_login_cancels_only_what_it_enqueued(logins: Logins, other: str) -> None:
    [[paid]] = await fetch(logins.producer, "select outbox.enqueue('paid', dedup_key => 'payment-42')")
    [[same]] = await fetch(other, "select outbox.enqueue('x', dedup_key => 'payment-42')")
    assert same == paid
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"message {paid} was enqueued by another login"):
        await fetch(other, "select outbox.cancel($1)", paid)
    assert await topics(logins.owner) == ["paid"]
    assert await fetch(other, "select outbox.cancel(gen_random_uuid())") == [(None,)]
    assert await fetch(logins.producer, "select outbox.cancel($1)", paid) == [(True,)]


async def test_workers_the_owner_and_members_of_a_login_cancel_what_it_enqueued(logins: Logins, other: str) -> None:
    [[name]] = await fetch(logins.producer, "select current_user")
    [[member]] = await fetch(other, "select current_user")
    for who in (logins.worker, logins.owner, other):
        [[enqueued]] = await fetch(logins.producer, "select outbox.enqueue('t')")
        if who == other:
            await fetch(logins.owner, f"grant {name} to {member}")
        assert await fetch(who, "select outbox.cancel($1)", enqueued) == [(True,)]


async def test_a_dead_letter_that_is_put_back_stays_its_producers(logins: Logins) -> None:
    [[name]] = await fetch(logins.producer, "select current_user")
    [[enqueued]] = await fetch(logins.producer, "select outbox.enqueue('t')")
    async with open_pool(logins.worker, size=1, application_name="test", statement_timeout_s=30) as pool:
        store = Store(pool, "outbox")
        worker_id = await Workers(pool, "outbox").register("w", "1", {})
        [message] = (await store.claim(1, lease_s=60, worker_id=worker_id)).messages
        await store.bury([Burial(message, "rejected", counted=True, kind="K", detail="d")])
        assert await fetch(logins.owner, "select enqueued_by from outbox.dead_letter") == [(name,)]
        assert await DeadLetters(pool, "outbox").requeue([enqueued])
    assert await fetch(logins.owner, "select enqueued_by from outbox.message") == [(name,)]
    assert await fetch(logins.producer, "select outbox.cancel($1)", enqueued) == [(True,)]


async def test_with_keys_of_their_own_no_login_swallows_or_blocks_anothers_messages(logins: Logins, other: str) -> None:
    await fetch(logins.owner, "select outbox.scope_keys()")
    await fetch(logins.owner, "select outbox.capture('shop.customers', '''captured''', key => 'new.name')")
    squat = "select outbox.enqueue('squat', key => 'k', dedup_key => 'd', available_at => '2199-01-01')"
    await fetch(other, squat)
    await fetch(logins.producer, "select outbox.enqueue('mine', key => 'k', dedup_key => 'd')")
    assert len(await fetch(logins.producer, "select outbox.enqueue('mine', dedup_key => 'd')")) == 1
    await fetch(logins.producer, """select outbox.enqueue_many('[{"topic": "many", "key": "k"}]')""")
    await fetch(logins.producer, """select outbox.enqueue_many('[{"topic": "one", "key": "k", "dedup_key": "e"}]')""")
    await fetch(logins.owner, "insert into shop.customers values (1, 'k')")
    [[name]] = await fetch(logins.producer, "select current_user")
    [[another]] = await fetch(other, "select current_user")
    rows = await fetch(logins.owner, "select topic, key, dedup_key from outbox.message order by seq")
    assert [tuple(row) for row in rows] == [
        ("squat", f"{another}:k", f"{another}:d"),
        ("mine", f"{name}:k", f"{name}:d"),
        ("many", f"{name}:k", None),
        ("one", f"{name}:k", f"{name}:e"),
        ("captured", "postgres:k", None),
    ]
    await fetch(logins.owner, "select outbox.scope_keys(false)")
    await fetch(logins.producer, "select outbox.enqueue('shared', key => 'k')")
    assert len(await fetch(logins.owner, "select from outbox.message where key = 'k'")) == 1


async def test_keys_of_two_logins_never_collide_with_any_names(logins: Logins) -> None:
    names = [f"{stem}_{uuid4().hex[:8]}" for stem in ("a", "a%3A", "a%")]
    names += [f"{names[0]}:b", f"{names[0]}:b:", f"{names[0]}%3Ab"]
    await fetch(logins.owner, "select outbox.scope_keys()")
    async with connected(logins.owner) as owner:
        for name in names:
            await owner.execute(f'create role "{name}" superuser')
        for name in names:
            await owner.execute(f'set session authorization "{name}"')
            for key in ("c", ":c", "b:c", "b::c", f"{name}:c"):
                await owner.execute("select outbox.enqueue('t', dedup_key => $1)", key)
            await owner.execute("reset session authorization")
        assert await owner.fetchval("select count(distinct dedup_key) from outbox.message") == 5 * len(names)
        for name in names:
            await owner.execute(f'drop role "{name}"')


# Row-level security, and what the doctor says of it


async def test_forced_row_level_security_refuses_no_enqueue_and_no_delivery(empty_database: str) -> None:
    """It binds the owner too, as which the functions of producers run."""
    schema = new_schema()
    async with login(empty_database, "createrole") as owner:
        [[name]] = await fetch(owner, "select current_user")
        await fetch(empty_database, f"create schema {schema} authorization {name}")
        await migrate(owner, schema)
        tables = await fetch(
            owner,
            "select relname from pg_class where relnamespace = $1::regnamespace and relkind in ('r', 'p')",
            schema,
        )
        for row in tables:
            await fetch(owner, f"alter table {schema}.{row[0]} enable row level security, force row level security")
        async with logins_for(empty_database, schema) as made:
            [[enqueued]] = await fetch(made.producer, f"select {schema}.enqueue('t')")
            await fetch(made.worker, f"select {schema}.create_history_partitions(9)")
            assert await fetch(made.producer, f"select {schema}.cancel($1)", enqueued) == [(True,)]
            assert len(await fetch(made.reader, f"select from {schema}.history")) == 1
        assert await migrate(owner, schema) == []
        await fetch(empty_database, f"drop schema {schema} cascade")
        await fetch(empty_database, f"drop role {schema}_producer, {schema}_worker, {schema}_reader")


async def test_the_cure_for_a_login_that_does_not_inherit_its_role_cures_it(database: str) -> None:
    async with login(database, "noinherit", "in role outbox_worker") as dsn:
        found = {finding.what: finding for finding in await examined(dsn)}["grants"]
        assert found.grade == "fault"
        await fetch(database, (found.cure or "").removesuffix(";"))
        assert {finding.what: finding for finding in await examined(dsn)}["grants"].grade == "good"


async def test_names_in_cures_are_quoted() -> None:
    assert [quoted(name) for name in ("user", "Mixed", 'a"b')] == ['"user"', '"Mixed"', '"a""b"']
