"""Daily partitions of the history: made ahead, dropped at retention, and never in the way of a settle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta

import anyio
import pytest
from asyncpg import Connection, LockNotAvailableError

from outbox.model.errors import DatabaseUnavailable
from outbox.model.sink import Delivered
from outbox.postgres.pool import open_pool
from outbox.store.retention import Retention
from outbox.store.workers import Workers
from tests.support.midnight import on_one_day
from tests.support.sql import clock, connected

PARTITIONS = """
    select inhrelid::regclass::text from pg_inherits where inhparent = 'outbox.history'::regclass
    and inhrelid <> 'outbox.history_default'::regclass order by 1
"""
NOW = "'2031-03-30 12:00+00'::timestamptz"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """Without the partitions that the migration made."""
    await on_one_day()
    async with connected(database) as connection:
        await connection.execute("select outbox.drop_history_partitions(1, now() + interval '1 year')")
        assert await connection.fetch(PARTITIONS) == []
        yield connection


async def partitions(db: Connection) -> list[str]:
    return [row[0].removeprefix("outbox.history_") for row in await db.fetch(PARTITIONS)]


async def settled(db: Connection, *times: str) -> None:
    await db.executemany(
        """
        insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic)
        values (outbox.new_message_id(), 1, $1::timestamptz, $1, $1, $1, 1, 0, 'delivered', 'topic')
        """,
        [(await db.fetchval("select $1::text::timestamptz", time),) for time in times],
    )


async def places(db: Connection) -> dict[str, int]:
    rows = await db.fetch("select tableoid::regclass::text as place, count(*) as n from outbox.history group by 1")
    return {row["place"].removeprefix("outbox.history_"): row["n"] for row in rows}


async def test_partitions_are_made_from_today_to_days_ahead(db: Connection) -> None:
    made = await db.fetch(f"select * from outbox.create_history_partitions(2, {NOW})")
    assert [row[0] for row in made] == ["history_20310330", "history_20310331", "history_20310401"]
    assert await partitions(db) == ["20310330", "20310331", "20310401"]


async def test_making_them_again_makes_nothing(db: Connection) -> None:
    await db.execute(f"select outbox.create_history_partitions(2, {NOW})")
    assert await db.fetch(f"select * from outbox.create_history_partitions(2, {NOW})") == []
    assert len(await db.fetch(f"select * from outbox.create_history_partitions(3, {NOW})")) == 1


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles", "Europe/Berlin"])
async def test_a_day_is_in_utc_with_any_time_zone_of_the_session(db: Connection, zone: str) -> None:
    """Berlin puts its clocks forward on that day."""
    await db.execute(f"set timezone = '{zone}'")
    await db.execute(f"select outbox.create_history_partitions(0, {NOW})")
    await settled(
        db,
        "2031-03-29 23:59:59.999999+00",
        "2031-03-30 00:00+00",
        "2031-03-30 23:59:59.999999+00",
        "2031-03-31 00:00+00",
    )
    assert await places(db) == {"default": 2, "20310330": 2}


async def test_rows_move_out_of_the_default_partition(db: Connection) -> None:
    await settled(
        db,
        "2031-03-29 23:59+00",
        "2031-03-30 00:00+00",
        "2031-03-30 10:00+00",
        "2031-03-31 10:00+00",
        "2031-04-05 10:00+00",
    )
    await db.execute(f"select outbox.create_history_partitions(1, {NOW})")
    assert await places(db) == {"default": 2, "20310330": 2, "20310331": 1}


async def test_partitions_have_the_historys_index_and_checks(db: Connection) -> None:
    await db.execute(f"select outbox.create_history_partitions(0, {NOW})")
    columns = "select indexdef from pg_indexes where tablename = 'history_20310330'"
    assert "(message_id)" in await db.fetchval(columns)
    assert await db.fetchval(f"select count(*) from ({columns}) i") == 1
    assert (
        await db.fetchval(
            "select count(*) from pg_constraint where conrelid = 'outbox.history_20310330'::regclass and contype = 'c'"
        )
        == 1
    )


async def test_dropping_keeps_the_days_of_retention(db: Connection) -> None:
    await db.execute(f"select outbox.create_history_partitions(9, {NOW} - interval '9 days')")
    dropped = await db.fetch(f"select * from outbox.drop_history_partitions(7, {NOW})")
    assert [row[0] for row in dropped] == ["history_20310321", "history_20310322"]
    assert (await partitions(db))[0] == "20310323"
    assert await db.fetch(f"select * from outbox.drop_history_partitions(7, {NOW})") == []


async def test_dropping_clears_the_default_partition_too(db: Connection) -> None:
    await settled(db, "2031-03-20 12:00+00", "2031-03-23 11:59+00", "2031-03-23 12:00+00")
    await db.execute(f"select outbox.drop_history_partitions(7, {NOW})")
    assert await places(db) == {"default": 1}


async def test_dropping_leaves_other_tables_alone(db: Connection) -> None:
    """A partition that a person attached under another name is left alone."""
    await db.execute(
        """
        create table outbox.history_archive partition of outbox.history for values from ('2020-01-01') to ('2021-01-01');
        create table outbox.history_20200202 ();
        """
    )
    assert await db.fetch(f"select * from outbox.drop_history_partitions(1, {NOW})") == []


@pytest.mark.parametrize("days", [0, -1])
async def test_retention_of_less_than_a_day_is_refused(db: Connection, days: int) -> None:
    with pytest.raises(Exception, match=f"keep_days is {days}, it must be at least 1"):
        await db.execute("select outbox.drop_history_partitions($1)", days)


async def test_long_reader_of_the_history_makes_dropping_and_making_give_up_soon(db: Connection, database: str) -> None:
    """Either waits for readers, and every settle would wait behind it."""
    await db.execute(f"select outbox.create_history_partitions(0, {NOW} - interval '9 days')")
    async with connected(database) as reader, reader.transaction():
        await reader.fetch("select count(*) from outbox.message_life")
        with anyio.fail_after(15), pytest.raises(LockNotAvailableError):
            await db.execute(f"select outbox.drop_history_partitions(7, {NOW})")
        with anyio.fail_after(15), pytest.raises(LockNotAvailableError):
            await db.execute(f"select outbox.create_history_partitions(0, {NOW})")
    assert await db.fetchval("show lock_timeout") == "0"
    assert len(await db.fetch(f"select * from outbox.drop_history_partitions(7, {NOW})")) == 1


# Maintenance


async def test_maintenance_makes_drops_and_forgets(db: Connection, database: str) -> None:
    today: date = await db.fetchval("select (now() at time zone 'UTC')::date")
    await db.execute("select outbox.create_history_partitions(0, now() - interval '40 days')")
    async with open_pool(database, size=1, application_name="test", statement_timeout_s=30) as pool:
        for name in ("stopped-long-ago", "silent-long-ago", "stopped", "alive"):
            await Workers(pool, "outbox").register(name, "1", {})
        await db.execute(
            """
            update outbox.worker set seen_at = now() - interval '31 days' where name = 'silent-long-ago';
            update outbox.worker set stopped_at = now() - interval '31 days' where name = 'stopped-long-ago';
            update outbox.worker set stopped_at = now() where name = 'stopped';
            """
        )
        done = await Retention(pool, "outbox").maintain(days_ahead=1, keep_days=30)
        assert sorted(done) == [
            ("created", f"history_{today:%Y%m%d}"),
            ("created", f"history_{today + timedelta(days=1):%Y%m%d}"),
            ("dropped", f"history_{today - timedelta(days=40):%Y%m%d}"),
            ("forgotten", "silent-long-ago"),
            ("forgotten", "stopped-long-ago"),
        ]
        assert await Retention(pool, "outbox").maintain(days_ahead=1, keep_days=30) == []


async def test_concurrent_maintenance_does_everything_once(db: Connection, database: str) -> None:
    await db.execute("select outbox.create_history_partitions(3, now() - interval '40 days')")
    done: list[tuple[str, str]] = []
    async with open_pool(database, size=8, application_name="test", statement_timeout_s=30) as pool:

        async def maintain() -> None:
            done.extend(await Retention(pool, "outbox").maintain(days_ahead=5, keep_days=30))

        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(maintain)
    assert sorted(what for what, _ in done) == ["created"] * 6 + ["dropped"] * 4
    assert len(await partitions(db)) == 6


async def test_maintenance_skips_while_another_worker_is_at_it(db: Connection, database: str) -> None:
    async with (
        connected(database) as other,
        other.transaction(),
        open_pool(database, size=1, application_name="test", statement_timeout_s=30) as pool,
    ):
        await other.execute("select outbox.change_alone()")
        with anyio.fail_after(15):
            assert await Retention(pool, "outbox").maintain(days_ahead=1, keep_days=30) == []


async def test_a_reader_of_an_old_day_does_not_keep_tomorrows_partition_from_being_made(
    db: Connection, database: str
) -> None:
    old = await db.fetchval("select outbox.create_history_partitions(0, now() - interval '40 days')")
    async with (
        connected(database) as reader,
        reader.transaction(),
        open_pool(database, size=1, application_name="test", statement_timeout_s=30) as pool,
    ):
        await reader.fetch(f"select count(*) from outbox.{old}")
        with pytest.raises(DatabaseUnavailable):
            await Retention(pool, "outbox").maintain(days_ahead=3, keep_days=30)
    assert len(await partitions(db)) == 1 + 4


async def test_after_a_week_without_workers_settling_works_at_once_and_the_day_gets_its_partition_later(
    db: Connection, database: str
) -> None:
    """The partitions that were made ahead ended days ago; the first maintenance failed or is still to come."""
    await db.execute("select outbox.create_history_partitions(3, now() - interval '7 days')")
    async with clock(database) as worker:
        worker.store.now = None
        await db.execute("select outbox.enqueue('a'), outbox.enqueue('b')")
        assert await worker.store.complete([(message, Delivered()) for message in await worker.claim()]) == set()
        assert await places(db) == {"default": 2}
        await worker.retention.maintain(days_ahead=3, keep_days=30)
    today: date = await db.fetchval("select (now() at time zone 'UTC')::date")
    assert await places(db) == {f"{today:%Y%m%d}": 2}


async def test_a_settle_at_midnight_finds_a_partition_on_either_side(db: Connection, database: str) -> None:
    await db.execute(f"select outbox.create_history_partitions(1, {NOW})")
    midnight = await db.fetchval("select '2031-03-31 00:00+00'::timestamptz")
    async with clock(database) as worker:
        worker.store.now = midnight - timedelta(seconds=30)
        await worker.enqueue("before", "after")
        before, after = await worker.claim()
        worker.store.now = midnight - timedelta(microseconds=1)
        assert await worker.store.complete([(before, Delivered())]) == set()
        worker.store.now = midnight
        assert await worker.store.complete([(after, Delivered())]) == set()
    assert await places(db) == {"20310330": 1, "20310331": 1}


async def test_settles_go_on_while_partitions_come_and_go(db: Connection, database: str) -> None:
    """Completions land in the default partition first, then in a daily one that is attached under them."""
    await db.execute(
        "select outbox.enqueue_many((select json_agg(json_build_object('topic', 't')) from generate_series(1, 1000)))"
    )
    async with clock(database, size=6) as worker:
        worker.store.now = None
        finished = anyio.Event()

        async def settle() -> None:
            while messages := await worker.claim(10):
                assert await worker.store.complete([(message, Delivered()) for message in messages]) == set()

        async def maintain() -> None:
            while not finished.is_set():
                await worker.retention.maintain(days_ahead=2, keep_days=30)
                await worker.pool.execute("select outbox.drop_history_partitions(1, now() + interval '1 year')")

        async with anyio.create_task_group() as maintainers:
            maintainers.start_soon(maintain)
            async with anyio.create_task_group() as settlers:
                for _ in range(3):
                    settlers.start_soon(settle)
            finished.set()
    assert await db.fetchval("select count(*) from outbox.message") == 0
