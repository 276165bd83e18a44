"""`outbox prune`: what is too old goes, counted before, in pieces, beside workers; what is not settled never does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import to_thread
from asyncpg import Connection

from outbox.cli.commands.prune import _BATCH, Pruned, _prune
from outbox.postgres.pool import open_pool
from outbox.store.retention import Retention
from tests.cli.test_cli import outbox
from tests.support.commands import Command
from tests.support.eventually import eventually
from tests.support.midnight import on_one_day
from tests.support.sql import connected

GATE = 4711
DEAD = """
    insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts, priority, reason, topic, headers, errors)
    select outbox.new_message_id(), n, now(), now(), now(), now() - make_interval(days => $1) + n * interval '1 millisecond', 1, 1, 0, 'rejected', $2, '{}', '[]'
    from generate_series(1, $3) n
"""


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """With the partitions of the last 50 days, and unsettled messages older than anything."""
    await on_one_day()
    async with connected(database) as connection:
        await connection.execute("select outbox.create_history_partitions(50, now() - interval '50 days')")
        await connection.execute("select outbox.enqueue('t'), outbox.enqueue('t', key => 'k')")
        await connection.execute(
            "update outbox.message set created_at = created_at - interval '1 year', available_at = created_at, due_at = created_at"
        )
        yield connection


async def settled(db: Connection, *days_ago: float) -> None:
    await db.executemany(
        """
        insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic)
        select outbox.new_message_id(), 1, at, at, at, at, 1, 0, 'delivered', 'topic' from (select now() - make_interval(secs => $1 * 86400) as at) a
        """,
        [(days,) for days in days_ago],
    )


async def ages(db: Connection, table: str, column: str) -> list[int]:
    return [
        row[0]
        for row in await db.fetch(
            f"select round(extract(epoch from now() - {column}) / 86400)::int from outbox.{table} order by {column}"
        )
    ]


async def test_a_dry_run_counts_exactly_what_goes_and_nothing_else_goes(db: Connection, database: str) -> None:
    await settled(db, 60, 55, 45, 40.5, 40, 29, 1, 0)  # the first two: no daily partition has them
    await db.execute(DEAD, 100, "old", 3)
    await db.execute(DEAD, 10, "young", 2)
    await db.execute(
        """
        insert into outbox.delivered_key select 'k' || n, outbox.new_message_id(), now() + n * interval '1 hour' from unnest('{-2, -1, 1}'::int[]) n;
        insert into outbox.worker (name, version, seen_at, stopped_at) values
            ('silent', '1', now() - interval '31 days', null), ('gone', '1', now() - interval '40 days', now() - interval '31 days'),
            ('alive', '1', now() - interval '2 minutes', null), ('stopped', '1', now(), now());
        """
    )
    arguments = ["prune", "--history-older-than", "30d", "--dead-older-than", "90d", "--json"]
    expected: dict[str, Any] = {
        "days": 20,
        "messages": 5,
        "dead_letters": 3,
        "dedup_keys": 2,
        "workers": 2,
        "interrupted": False,
        "left": None,
    }
    dry = await outbox(database, *arguments, "--dry-run")
    assert (dry.code, dry.err, json.loads(dry.out)) == (0, "", expected | {"dry_run": True})
    assert len(await ages(db, "history", "settled_at")) == 8

    done = await outbox(database, *arguments, "--yes")
    assert (done.code, done.err, json.loads(done.out)) == (0, "", expected | {"dry_run": False})
    assert await ages(db, "history", "settled_at") == [29, 1, 0, 0, 0, 0]
    assert await db.fetchval("select count(*) from outbox.history where outcome = 'discarded' and topic = 'old'") == 3
    assert await ages(db, "dead_letter", "died_at") == [10, 10]
    assert [row["name"] for row in await db.fetch("select name from outbox.worker order by name")] == [
        "alive",
        "stopped",
    ]
    assert await db.fetchval("select array_agg(dedup_key) from outbox.delivered_key") == ["k1"]
    assert await db.fetchval("select count(*) from outbox.message") == 2
    again = await outbox(database, *arguments, "--yes")
    assert not any(json.loads(again.out).values())
    assert (await outbox(database, "prune", "--json")).fault.startswith("nothing was done: --json does not ask")


async def test_without_options_the_retention_of_the_setting_counts_and_dead_letters_stay(
    db: Connection, database: str
) -> None:
    await settled(db, 9, 7.1, 5)
    await db.execute(DEAD, 1000, "t", 1)
    week = {"OUTBOX_HISTORY_DAYS": "7"}
    refused = await outbox(database, "prune", **week)
    assert refused.code == 2
    assert refused.err == "outbox: nothing was done: use --yes to prune without being asked, or --dry-run to look\n"
    assert "7 d is what OUTBOX_HISTORY_DAYS says" in refused.out
    assert "all stay; --dead-older-than says which go" in refused.out
    assert await ages(db, "history", "settled_at") == [9, 7, 5]
    done = await outbox(database, "prune", "--yes", **week)
    assert (done.code, done.err) == (0, "")
    # The day that holds the time a week ago is dropped when it is a week ago as a whole.
    assert (await ages(db, "history", "settled_at"))[-1] == 5
    assert 9 not in await ages(db, "history", "settled_at")
    assert await db.fetchval("select count(*) from outbox.dead_letter") == 1


async def test_an_interrupted_prune_shows_what_it_did_and_the_same_command_goes_on(
    db: Connection, database: str
) -> None:
    await db.execute(DEAD, 100, "t", 5 * _BATCH)
    await db.execute(
        f"""
        create function public.gate() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock({GATE}); return old; end $$;
        create trigger gate before delete on outbox.dead_letter
        for each row when (old.seq = {2 * _BATCH + 7}) execute function public.gate();
        """
    )
    command = ["prune", "--dead-older-than", "90d", "--yes"]
    async with connected(database) as holder:
        await holder.execute(f"select pg_advisory_lock({GATE})")
        process = await to_thread.run_sync(
            partial(
                Command,
                command,
                env=os.environ | {"DATABASE_URL": database},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        waiting = "select exists (select from pg_locks where locktype = 'advisory' and objid = $1 and not granted)"
        await eventually(lambda: db.fetchval(waiting, GATE), bool)
        assert await db.fetchval("select count(*) from outbox.dead_letter") == 3 * _BATCH
        process.send_signal(signal.SIGINT)
        await holder.execute(f"select pg_advisory_unlock({GATE})")
        out, err = await to_thread.run_sync(process.communicate)
    assert process.returncode == 130
    left = await db.fetchval("select count(*) from outbox.dead_letter")
    assert 0 < left <= 2 * _BATCH
    assert out.splitlines()[-1] == f"pruned: {5 * _BATCH - left:,} dead letters"
    assert err == "outbox: interrupted; the same command goes on with the rest\n"
    assert (await outbox(database, *command)).code == 0
    assert await db.fetchval("select count(*) from outbox.dead_letter") == 0


async def test_a_long_reader_keeps_the_history_and_nothing_else(db: Connection, database: str) -> None:
    await settled(db, 40)
    await db.execute(DEAD, 100, "t", 1)
    async with connected(database) as reader, reader.transaction():
        await reader.fetch("select count(*) from outbox.history")
        done = await outbox(database, "prune", "--dead-older-than", "90d", "--yes")
    assert done.code == 1
    assert done.out == "pruned: 1 dead letters\n"
    assert done.err == (
        "outbox: 20 days of history stay: drop history: canceling statement due to lock timeout; "
        "a transaction that reads the history may be in the way: come again\n"
    )
    assert await ages(db, "history", "settled_at") == [40, 0]


async def test_prunes_and_maintenance_at_once_do_everything_once(db: Connection, database: str) -> None:
    await settled(db, 60, *range(31, 50))
    await db.execute(DEAD, 100, "t", 3000)
    tallies = [Pruned() for _ in range(3)]
    maintained: list[tuple[str, str]] = []
    async with open_pool(database, size=4, application_name="test", statement_timeout_s=30) as pool:
        retention = Retention(pool, "outbox")
        found = await retention.prunable(30 * 86_400, 90 * 86_400)
        assert (len(found.days), found.strays, found.dead_letters) == (20, 1, 3000)

        async def maintain() -> None:
            maintained.extend(await retention.maintain(days_ahead=3, keep_days=30))

        async with anyio.create_task_group() as tasks:
            for tally in tallies:
                tasks.start_soon(_prune, found, 30 * 86_400, tally, retention)
            tasks.start_soon(maintain)
    assert sum(tally.days for tally in tallies) + sum(what == "dropped" for what, _ in maintained) == 20
    assert sum(tally.dead_letters for tally in tallies) == 3000
    assert await db.fetchval("select count(distinct seq) from outbox.history where outcome = 'discarded'") == 3000
    await db.execute("delete from outbox.history where outcome = 'discarded'")
    assert all(tally.left is None for tally in tallies)
    assert await ages(db, "history", "settled_at") == []
