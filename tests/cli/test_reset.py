"""`outbox reset` deletes everything of the outbox in one transaction, after a confirmation, and nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import AsyncIterator

import pytest
from anyio import to_thread
from asyncpg import Connection

from outbox.model.events import WorkerStarted
from outbox.store.sql import migrations
from tests.cli.test_cli import outbox
from tests.support.commands import Command
from tests.support.running import enqueue, running
from tests.support.sql import connected

SURE = "--yes-delete-everything"
TABLES = """
    select relname from pg_class where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p')
    and relname !~ '^history_[0-9]{8}$' and relname not in ('migration', 'history_default', 'uptime', 'home', 'retention') order by 1
"""
FILL = """
    insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts, priority, reason, topic, headers, errors)
    values (outbox.new_message_id(), 1, now(), now(), now(), now(), 1, 1, 0, 'rejected', 't', '{}', '[]');
    insert into outbox.history (message_id, seq, created_at, available_at, settled_at, deliveries, attempts, outcome, topic)
    values (outbox.new_message_id(), 1, now(), now(), now(), 1, 0, 'delivered', 't');
    insert into outbox.delivered_key values ('k', outbox.new_message_id(), now());
    insert into outbox.worker (name, version, seen_at, presence) values
        ('killed just now', '1', now(), 1234567), ('silent', '1', now() - interval '1 hour', null);
    select outbox.pause(topic => 'other');
    select outbox.resume(topic => 'other');
    select outbox.pause(topic => 't');
    select outbox.limit_topic('t', 1, 1);
    select outbox.set_switch('mode', '"poll"');
    insert into outbox.import (name, identity) values ('old', 'id');
    insert into outbox.imported (import_id, identity, message_id, workflow_id, workflow) select import_id, '1', outbox.new_message_id(), 'w', 'W' from outbox.import;
    create table public.orders (id int);
    select outbox.capture('public.orders', topic => $$'orders'$$);
    grant usage on schema outbox to public;
    insert into public.orders values (1), (2);
"""


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """With something in every table, and a capture."""
    async with connected(database) as connection:
        await connection.execute(FILL)
        yield connection


async def filled(db: Connection) -> dict[str, int]:
    tables = [row[0] for row in await db.fetch(TABLES)]
    return {table: await db.fetchval(f"select count(*) from outbox.{table}") for table in tables}


async def test_without_the_flag_or_a_terminal_it_shows_what_would_be_lost_and_refuses(
    db: Connection, database: str
) -> None:
    before = await filled(db)
    done = await outbox(database, "reset")
    assert done.code == 2
    assert done.err == "outbox: nothing was done: use --yes-delete-everything if that is what you want\n"
    name = await db.fetchval("select current_database()")
    assert f", database {name}, schema outbox\n" in done.out
    for line in (
        "2 messages that are not settled",
        "1 dead letters",
        "1 messages of history",
        "captures of public.orders",
    ):
        assert line in done.out
    assert await filled(db) == before


async def test_every_table_is_emptied_and_what_others_made_around_them_stays(db: Connection, database: str) -> None:
    assert all((await filled(db)).values())  # else the test would not show that the new one is emptied
    done = await outbox(database, "reset", SURE)
    assert (done.code, done.err, done.out.splitlines()[-1]) == (0, "", "the outbox is empty")
    assert not any((await filled(db)).values())
    assert (await outbox(database, "migrate", "--status")).code == 0
    await db.execute("insert into public.orders values (3)")
    assert await db.fetchval("select array_agg(seq) from outbox.message") == [1]
    assert await db.fetchval("select has_schema_privilege('public', 'outbox', 'usage')")


async def test_running_workers_are_named_or_with_force_go_on(database: str) -> None:
    async with running(database, worker_name="alice") as worker:
        await worker.log.wait_for(WorkerStarted)
        done = await outbox(database, "reset", SURE)
        assert done.code == 2
        assert done.err == (
            "outbox: nothing was done: 1 running (alice): stop them first, or use --force to do it while they run\n"
        )
        assert (await outbox(database, "reset", SURE, "--force")).code == 0
        await enqueue(database)
        await worker.wait_completed(1)
        assert "alice" in (await outbox(database, "status", COLUMNS="120")).out


@pytest.mark.parametrize("right", [True, False])
async def test_on_a_terminal_the_databases_name_has_to_be_typed(db: Connection, database: str, right: bool) -> None:
    name = await db.fetchval("select current_database()") if right else "y"
    terminal, inside = pty.openpty()
    command = Command(
        ["reset"],
        env=os.environ | {"DATABASE_URL": database},
        stdin=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.write(terminal, f"{name}\n".encode())
    out, _ = await to_thread.run_sync(command.communicate)
    os.close(terminal)
    os.close(inside)
    assert "Type the name of the database to delete all this" in out
    assert command.returncode == (0 if right else 1)
    assert any((await filled(db)).values()) != right


async def test_a_schema_in_any_state_is_made_again_and_what_goes_with_it_is_shown_before(
    db: Connection, database: str
) -> None:
    await db.execute("create view public.life as select status from outbox.message_life")
    await db.execute("create publication elsewhere for table outbox.message")
    await db.execute("update outbox.migration set checksum = 'edited' where version = 1")
    done = await outbox(database, "reset", SURE)
    assert done.code == 3
    assert done.fault.endswith(", or make it again: `outbox reset --drop-schema`")
    shown = await outbox(database, "reset", "--drop-schema")
    assert shown.code == 2
    assert "goes too: view public.life" in shown.out
    assert "in publication elsewhere" in shown.out
    assert "goes too: trigger outbox_rows_insert on table public.orders" in shown.out
    assert all((await filled(db)).values())
    done = await outbox(database, "reset", SURE, "--drop-schema")
    assert (done.code, done.err, done.out.splitlines()[-1]) == (0, "", "the schema is new")
    assert not any((await filled(db)).values())
    assert await db.fetchval("select to_regclass('public.life')") is None
    assert await db.fetchval("select count(*) from outbox.migration") == len(migrations())
    assert await db.fetchval("select count(*) > 3 from pg_inherits where inhparent = 'outbox.history'::regclass")


async def test_a_schema_that_cannot_be_read_needs_force(db: Connection, database: str) -> None:
    await db.execute("drop table outbox.dead_letter cascade")
    done = await outbox(database, "reset", SURE, "--drop-schema")
    assert done.code == 2
    assert "whether workers run cannot be read either; stop them, then use --force" in done.err
    assert (await outbox(database, "reset", SURE, "--drop-schema", "--force")).code == 0
    assert (await outbox(database, "migrate", "--status")).code == 0


async def test_a_database_without_the_schema_gets_it(empty_database: str) -> None:
    done = await outbox(empty_database, "reset", SURE)
    assert (done.code, done.out) == (3, "")
    done = await outbox(empty_database, "reset", SURE, "--drop-schema")
    assert (done.code, "nothing is lost" in done.out) == (0, True)
    assert (await outbox(empty_database, "migrate", "--status")).code == 0


async def test_the_schema_public_is_never_dropped(database: str) -> None:
    done = await outbox(database, "reset", SURE, "--drop-schema", OUTBOX_SCHEMA="public")
    assert (done.code, done.fault) == (2, "nothing was done: the schema is public, which holds more than the outbox")
