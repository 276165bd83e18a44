"""Everything works under the settings of roles and databases that are furthest from PostgreSQL's own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from outbox.model.message import Pause
from outbox.model.sink import Delivered
from outbox.store.dead_letters import DeadLetters
from outbox.store.messages import Burial, Retry
from outbox.store.migrations import migrate
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.processes import worker_process
from tests.support.running import fetch
from tests.support.sql import clock, connected

OF_DATABASE = {
    "TimeZone": "Asia/Shanghai",
    "DateStyle": "SQL, MDY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "quote_all_identifiers": "on",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "search_path": "hostile",
    "row_security": "off",
    "plan_cache_mode": "force_custom_plan",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "jit": "on",
    "jit_above_cost": "0",
}
OF_OUR_SESSIONS = {
    "statement_timeout": "15ms",
    "lock_timeout": "1ms",
    "idle_session_timeout": "20ms",
    "idle_in_transaction_session_timeout": "2ms",
}
"""What a login may have besides. An application that has these chose them."""


UNBOUNDED = ["lock_timeout", "idle_session_timeout", "transaction_timeout"]


@dataclass(frozen=True)
class Hostile:
    """A database under these settings."""

    ours: str
    """As what `outbox` connects."""
    applications: str


@pytest.fixture
async def hostile(empty_database: str) -> AsyncIterator[Hostile]:
    name = f"hostile_{uuid4().hex[:8]}"
    async with connected(empty_database) as owner:
        database = await owner.fetchval("select current_database()")
        await owner.execute("""
            create schema hostile;
            create function hostile.caught(name, name) returns text language plpgsql as $$ begin raise 'caught %', current_user; end $$;
            create operator hostile.|| (leftarg = name, rightarg = name, function = hostile.caught);
            create function hostile.pg_notify(name, text) returns void language plpgsql as $$ begin raise 'caught %', current_user; end $$;
            create publication everything for all tables;
        """)
        await owner.execute(f"create role {name} superuser login")
        for setting, value in OF_DATABASE.items():
            await owner.execute(f"alter database {database} set {setting} = {listed(value)}")
        for setting, value in OF_OUR_SESSIONS.items():
            await owner.execute(f"alter role {name} set {setting} = {listed(value)}")
        if owner.get_server_version().major >= 17:
            await owner.execute(
                f"alter role {name} set transaction_timeout = '1s'"
            )  # room for the statement that lifts it
    try:
        yield Hostile(re.sub("//[^@]*@", f"//{name}@", empty_database), empty_database)
    finally:
        async with connected(re.sub("/[^/]*$", "/postgres", empty_database)) as owner:
            await owner.execute(f"drop database {database} with (force)")
            await owner.execute(f"drop role {name}")
            await owner.execute(f"create database {database}")  # the fixture drops it


def listed(value: str) -> str:
    return ", ".join(f"'{item}'" for item in value.split(", "))


async def test_the_core_works_under_hostile_settings(hostile: Hostile) -> None:
    assert await migrate(hostile.ours)
    assert await migrate(hostile.ours) == []
    async with connected(hostile.applications) as application, clock(hostile.ours) as worker:
        assert await application.fetchval("show quote_all_identifiers") == "on"
        assert set(
            await worker.pool.fetchval(
                "select array_agg(current_setting(name, true)) from unnest($1::text[]) name", UNBOUNDED
            )
        ) <= {"0", None}
        worker.pass_s(3600)
        store = worker.store
        await application.execute("create table public.orders (id int, name text)")
        capture = (
            "select outbox.capture('public.orders', '''ordered''', key => 'new.name', operations => 'insert or update')"
        )
        assert await application.fetchval(capture) == "installed"
        await application.execute(
            "select outbox.enqueue('plain', '{\"a\": 1.10}', expires_at => now() + interval '1 year')"
        )
        await application.execute("select outbox.start_workflow('W', 'w', '1', execution_timeout => interval '1 hour')")
        await application.execute('select * from outbox.enqueue_many(\'[{"topic": "many", "dedup_key": "d"}]\')')
        await application.execute("insert into public.orders values (1, 'k'), (2, 'k')")
        await application.execute("select outbox.enqueue('paused.x'), outbox.enqueue('limited')")
        await application.execute("select outbox.pause('paused.*'), outbox.limit_topic('limited', 100)")
        messages = await worker.claim()
        came = [message.topic for message in messages]
        assert sorted(came) == ["W", "limited", "many", "ordered", "plain"]
        assert messages[0].age_s == pytest.approx(3600, abs=30)
        assert messages[came.index("plain")].payload == '{"a": 1.10}'
        one, two, three, *rest = messages
        assert await store.retry([Retry(one, 60, counted=True, kind="K", detail="d")]) == set()
        assert await store.bury([Burial(two, "rejected", counted=True, kind="K", detail="d")]) == set()
        assert await store.release([three]) == set()
        assert await store.complete([(message, Delivered("w", "r")) for message in rest]) == set()
        assert (await worker.overview.status())["messages"]["waiting"] >= 1
        assert await worker.rules.resume(Pause("paused.*", None))
        assert await DeadLetters(worker.pool, "outbox").requeue([two.message_id])
        worker.pass_s(120)
        while messages := await worker.claim():
            assert await store.complete([(message, Delivered()) for message in messages]) == set()
        assert await application.fetchval("select count(*) from outbox.message") == 0
        assert await application.fetchval("select count(*) from outbox.history") == 7


async def test_days_of_the_history_begin_and_end_in_utc(hostile: Hostile) -> None:
    await migrate(hostile.ours)
    async with connected(hostile.applications) as application:
        await application.execute("select outbox.create_history_partitions(2, now() - interval '40 days')")
        await application.execute("set timezone = 'UTC'; set datestyle = 'ISO'")
        bounds = await application.fetch("""
            select c.relname, pg_get_expr(c.relpartbound, c.oid) as bound
            from pg_class c join pg_inherits i on i.inhrelid = c.oid where c.relname ~ '^history_[0-9]+$'
        """)
        assert len(bounds) == 8 + 3
        for name, bound in bounds:
            day = f"{name[8:12]}-{name[12:14]}-{name[14:16]}"
            assert bound.startswith(f"FOR VALUES FROM ('{day} 00:00:00+00')"), bounds
        # A row that no day takes, and that a publication for all tables would keep from being deleted.
        await application.execute("""
            insert into outbox.history (message_id, seq, created_at, available_at, settled_at, deliveries, attempts, outcome, topic)
            select gen_random_uuid(), 1, at, at, at, 1, 0, 'delivered', 't' from (select now() - interval '100 days' as at) a
        """)
        await application.execute("select outbox.drop_history_partitions(30)")
        assert await application.fetchval("select count(*) from outbox.history") == 0


async def test_a_worker_receives_notifications_and_commands_answer(hostile: Hostile, tmp_path: Path) -> None:
    await migrate(hostile.ours)
    chosen = {"OUTBOX_SINK": "tests.support.sinks:null_sink", "DATABASE_URL": hostile.ours}
    with worker_process(tmp_path, "relay", **chosen) as relay:
        await relay.logged("wake-up source subscribed")
        await relay.logged("presence shown")
        async with connected(hostile.applications) as application:
            await application.execute("select outbox.enqueue('t', key => 'k') from generate_series(1, 3)")
            await eventually(lambda: application.fetchval("select count(*) from outbox.history"), lambda n: n == 3)
        await anyio.sleep(0.5)  # longer than any of the time-outs: nothing of it may end a connection
        status = await outbox(hostile.ours, "status")
        assert status.code == 0, status
        assert (await outbox(hostile.ours, "pause", "--topic", "a.*")).code == 0
        assert relay.stop() == 0
    assert relay.lines("wake-up source lost") == []


async def test_every_table_can_be_published_with_all_its_changes(database: str) -> None:
    rows = await fetch(
        database,
        """
        select c.relname from pg_class c
        where c.relnamespace = 'outbox'::regnamespace and c.relkind = 'r' and c.relreplident = 'd'
          and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
        """,
    )
    assert {row[0] for row in rows if not re.fullmatch("history_[0-9]{8}", row[0])} == set()
