"""Durable before delivered: with any settings, what a worker or a person could see survives a crash of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest
from anyio import to_thread

from outbox.model.events import Buried
from outbox.postgres.pool import open_pool
from outbox.store.messages import Store
from outbox.store.migrations import migrate
from outbox.store.sql import query
from outbox_temporal.servers.postgres import PostgresServer
from outbox_workflows.shared.migrations import APPLICATION
from tests.cli.test_cli import outbox
from tests.support.running import fetch, running
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(120)

WEAKENED = {
    "session": "set synchronous_commit = off",
    "role": "alter role producer set synchronous_commit = off",
    "database": "alter database postgres set synchronous_commit = off",
    "role in database": "alter role producer in database postgres set synchronous_commit = off",
    "server": "alter system set synchronous_commit = off",
}
"""Where commits can be made weaker, and how."""

ENQUEUE = {
    "enqueue": "select outbox.enqueue('t')",
    "enqueue_many": """select * from outbox.enqueue_many('[{"topic": "t"}, {"topic": "t"}]')""",
    "a capture": "insert into orders (id) values (1)",
    "a plain insert": """insert into outbox.message (message_id, due_at, available_at, created_at, topic)
                         values (outbox.new_message_id(), now(), now(), now(), 't')""",
}
BY_HAND = {
    "cancel": "select outbox.cancel(message_id) from outbox.message",
    "pause": "select outbox.pause('mail.*')",
    "resume": "select outbox.resume()",
    "limit": "select outbox.limit_topic('mail.*', 5)",
    "switch": "select outbox.set_switch('x', '1')",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that writes asynchronous commits to disk after ten seconds only, and does nothing by itself."""
    quiet = {"wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off"}
    with PostgresServer.start(settings={"wal_writer_delay": "10s", **quiet}, fsync=False) as server:
        yield server


@pytest.fixture
async def crashing(anyio_backend: object, server: PostgresServer) -> AsyncIterator[PostgresServer]:
    """The same, with a fresh schema, a table with captured rows, and a superuser `producer`."""
    for statement in (
        "drop schema if exists outbox cascade",
        "drop table if exists orders, captured",
        "create table orders (id int primary key)",
        "create role producer superuser login",
    ):
        await fetch(server.dsn(), statement)
    await migrate(server.dsn())
    try:
        yield server
    finally:
        await fetch(server.dsn(), "alter system reset synchronous_commit")
        await fetch(server.dsn(), "alter database postgres reset synchronous_commit")
        await fetch(server.dsn(), "select pg_reload_conf()")
        await fetch(server.dsn(), "drop role producer")


@asynccontextmanager
async def weakened(server: PostgresServer, where: str = "session") -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A producer's connection with commits that do not wait for the disk. Everything before it is on disk."""
    if where != "session":
        await fetch(server.dsn(), WEAKENED[where])
        await fetch(server.dsn(), "select pg_reload_conf()")
    await fetch(server.dsn(), "checkpoint")
    async with connected(server.dsn().replace("postgres@", "producer@")) as producer:
        if where == "session":
            await producer.execute(WEAKENED[where])
        yield producer


async def is_durable(connection: asyncpg.Connection[asyncpg.Record], statement: str, *arguments: object) -> bool:
    """Run a statement, and say whether its commit waited for the disk."""
    [[before]] = await connection.fetch("select pg_current_wal_insert_lsn()")
    await connection.fetch(statement, *arguments)
    return bool(await connection.fetchval("select pg_current_wal_flush_lsn() > $1", before))


async def crash(server: PostgresServer) -> None:
    await to_thread.run_sync(server.stop, "immediate")
    await to_thread.run_sync(server.restart)


async def test_crash_loses_what_such_a_producer_writes_without_a_message(crashing: PostgresServer) -> None:
    """Else the other tests would show nothing."""
    async with weakened(crashing) as producer:
        assert not await is_durable(producer, "insert into orders (id) values (7)")
        assert len(await fetch(crashing.dsn(), "select from orders")) == 1
        await crash(crashing)
    assert await fetch(crashing.dsn(), "select from orders") == []


async def test_what_was_started_has_its_message_and_its_row_after_a_crash(crashing: PostgresServer) -> None:
    async with running(crashing.dsn(), mode="poll", poll_interval_s=0.1) as relay, weakened(crashing) as producer:
        async with producer.transaction():
            await producer.execute("insert into orders (id) values (7)")
            [[message_id]] = await producer.fetch("select outbox.start_workflow('W', 'w-7')")
        await relay.wait_completed(1)
        await crash(crashing)
        assert len(await fetch(crashing.dsn(), "select from orders")) == 1
        known = await fetch(crashing.dsn(), "select from outbox.message_life where message_id = $1", message_id)
        assert len(known) == 1


@pytest.mark.parametrize("where", WEAKENED)
async def test_enqueueing_commit_is_durable_wherever_that_was_switched_off(
    crashing: PostgresServer, where: str
) -> None:
    async with weakened(crashing, where) as producer:
        # Every ten seconds the server writes by itself.
        inserts = [await is_durable(producer, f"insert into orders (id) values ({number})") for number in range(5)]
        assert not all(inserts)
        assert await is_durable(producer, "select outbox.start_workflow('W', 'w-7')")


@pytest.mark.parametrize("way", ENQUEUE)
async def test_every_way_in_is_durable(crashing: PostgresServer, way: str) -> None:
    await fetch(crashing.dsn(), "select outbox.capture('orders', '''order.created''')")
    async with weakened(crashing) as producer:
        assert await is_durable(producer, ENQUEUE[way])


async def test_requeued_dead_letter_is_durable(crashing: PostgresServer) -> None:
    message_id = uuid4()
    await fetch(
        crashing.dsn(),
        """insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts,
               priority, reason, topic, headers, errors)
           values ($1, 1, now(), now(), now(), now(), 1, 1, 0, 'rejected', 't', '{}', '[]')""",
        message_id,
    )
    async with weakened(crashing) as person:
        assert await is_durable(person, query("dead_letters/requeue", "outbox"), [message_id])


async def test_enqueue_is_durable_where_triggers_of_ordinary_sessions_are_off(crashing: PostgresServer) -> None:
    async with weakened(crashing) as producer:
        await producer.execute("set session_replication_role = replica")
        assert await is_durable(producer, "select outbox.enqueue('t')")


@pytest.mark.parametrize("what", BY_HAND)
async def test_what_a_person_is_shown_is_durable(crashing: PostgresServer, what: str) -> None:
    await fetch(crashing.dsn(), "select outbox.enqueue('t'), outbox.pause()")
    async with weakened(crashing) as person:
        assert await is_durable(person, BY_HAND[what])


async def test_step_of_a_workflow_is_durable(crashing: PostgresServer) -> None:
    await fetch(crashing.dsn(), "drop schema if exists app cascade")
    await migrate(crashing.dsn(), lineage=APPLICATION)
    step = "insert into app.step (tenant_id, workflow_id, step, activity) values ($1, 'w', 's', 'a')"
    async with weakened(crashing) as worker:
        tenant_id = uuid4()
        transaction = worker.transaction()
        await transaction.start()
        await worker.execute("select app.enter($1)", tenant_id)
        await worker.execute(step, tenant_id)
        assert await is_durable(worker, "commit")


@pytest.mark.parametrize(
    ("before", "after"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
async def test_setting_is_raised_for_the_transaction_and_never_lowered(database: str, before: str, after: str) -> None:
    async with connected(database) as producer:
        await producer.execute(f"set synchronous_commit = {before}")
        async with producer.transaction():
            await producer.execute("select outbox.enqueue('t')")
            assert await producer.fetchval("show synchronous_commit") == after
        assert await producer.fetchval("show synchronous_commit") == before


async def test_setting_stays_raised_after_a_savepoint_is_rolled_back_and_another_insert(database: str) -> None:
    async with connected(database) as producer:
        await producer.execute("set synchronous_commit = off")
        async with producer.transaction():
            inner = producer.transaction()
            await inner.start()
            await producer.execute("select outbox.enqueue('t')")
            await inner.rollback()
            assert await producer.fetchval("show synchronous_commit") == "off"
            await producer.execute("select outbox.enqueue('t')")
            assert await producer.fetchval("show synchronous_commit") == "on"


# What is said after a crash that erased a claim


async def claimed_and_forgotten(server: PostgresServer, **arguments: str) -> UUID:
    """A message that a worker has claimed, and perhaps delivered, and that looks as if it had never been."""
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    [[message_id]] = await fetch(server.dsn(), f"select outbox.start_workflow('W', 'w-7'{more})")
    await fetch(server.dsn(), "checkpoint")
    async with open_pool(
        server.dsn(), size=1, application_name="worker", statement_timeout_s=10, durable=False
    ) as pool:
        batch = await Store(pool, "outbox").claim(1, lease_s=60, worker_id=1)
        assert [message.message_id for message in batch.messages] == [message_id]
        await crash(server)
    [row] = await fetch(server.dsn(), "select claimed_at, deliveries from outbox.message")
    assert tuple(row) == (None, 0)
    assert isinstance(message_id, UUID)
    return message_id


async def test_cancel_does_not_say_that_a_message_was_not_delivered(crashing: PostgresServer) -> None:
    forgotten = await claimed_and_forgotten(crashing)
    done = await outbox(crashing.dsn(), "cancel", str(forgotten))
    assert (done.code, done.out) == (
        0,
        f"{forgotten} cancelled; PostgreSQL has crashed or failed over since: it may have been delivered before, see "
        "`outbox audit`\n",
    )
    [[later]] = await fetch(crashing.dsn(), "select outbox.enqueue('t')")
    done = await outbox(crashing.dsn(), "cancel", str(later))
    assert (done.code, done.out) == (0, f"{later} cancelled\n")


@pytest.mark.parametrize("on_expiry", ["bury", "discard"])
async def test_expiry_does_not_say_that_a_message_was_not_delivered(crashing: PostgresServer, on_expiry: str) -> None:
    in_time = "now() + interval '1 hour'"
    forgotten = await claimed_and_forgotten(crashing, expires_at=in_time, on_expiry=f"'{on_expiry}'")
    await fetch(crashing.dsn(), "update outbox.message set expires_at = now() - interval '1 second'")
    async with running(crashing.dsn(), mode="poll", poll_interval_s=0.1) as relay:
        await relay.log.wait_for(Buried)
    [letter] = await fetch(
        crashing.dsn(), "select message_id, reason, errors -> -1 ->> 'detail' as detail from outbox.dead_letter"
    )
    assert (letter["message_id"], letter["reason"]) == (forgotten, "expired")
    assert "an earlier delivery may have got through" in letter["detail"]


async def test_restart_in_order_leaves_no_doubt(crashing: PostgresServer) -> None:
    [[message_id]] = await fetch(crashing.dsn(), "select outbox.enqueue('t')")
    await to_thread.run_sync(crashing.stop)
    await to_thread.run_sync(crashing.restart)
    done = await outbox(crashing.dsn(), "cancel", str(message_id))
    assert (done.code, done.out) == (0, f"{message_id} cancelled\n")


async def test_message_that_was_not_due_before_the_crash_is_in_no_doubt(crashing: PostgresServer) -> None:
    [[message_id]] = await fetch(
        crashing.dsn(), "select outbox.enqueue('t', available_at => now() + interval '1 hour')"
    )
    await crash(crashing)
    done = await outbox(crashing.dsn(), "cancel", str(message_id))
    assert (done.code, done.out) == (0, f"{message_id} cancelled\n")


@pytest.mark.parametrize("way", ["plain", "ruled", "restricted"])
async def test_delivery_after_a_crash_counts_as_a_repeat_if_the_message_was_due_before_it(
    crashing: PostgresServer, way: str
) -> None:
    enqueue = "select outbox.enqueue('t', key => 'k')" if way == "restricted" else "select outbox.enqueue('t')"
    if way == "ruled":
        await fetch(crashing.dsn(), "select outbox.limit_topic('other', 5)")
    [[before]] = await fetch(crashing.dsn(), enqueue)
    await crash(crashing)
    async with running(crashing.dsn(), mode="poll", poll_interval_s=0.1) as relay:
        await relay.wait_completed(1)
        [[after]] = await fetch(crashing.dsn(), enqueue)
        await relay.wait_completed(2)
    assert [(message.message_id, message.setbacks) for message in relay.sink.received] == [(before, 1), (after, 0)]
