"""A worker's life: waiting for its database, being woken, losing its connections, draining."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import to_thread

from outbox.model.errors import SchemaError
from outbox.model.events import (
    Claimed,
    DatabaseLost,
    DatabaseRestored,
    Drained,
    DrainStarted,
    Released,
    SourceDegraded,
    SourceLost,
    SourceReady,
    WorkerStarted,
)
from outbox.model.sink import Sink, SinkContext
from outbox.store.migrations import migrate
from outbox.store.sql import query
from outbox.store.workers import Workers
from outbox.worker.worker import Worker
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.event_log import EventLog
from tests.support.running import counts, enqueue, fetch, running, settings
from tests.support.sinks import FakeSink
from tests.support.sql import connected
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(90)
ASLEEP = {"poll_interval_s": 3600.0, "fallback_interval_s": 3600.0}
"""A relay that finds nothing by polling: a wake-up announced each message that it delivers."""


async def test_commit_wakes_an_idle_worker(database: str) -> None:
    async with running(database, **ASLEEP) as relay:
        await relay.log.wait_for(SourceReady)
        for n in range(1, 6):
            await enqueue(database)
            await relay.wait_completed(n)


async def test_commit_wakes_although_another_transaction_that_enqueued_stays_open(database: str) -> None:
    async with running(database, poll_interval_s=3600.0) as relay, connected(database) as slow:
        await relay.log.wait_for(SourceReady)
        await slow.execute("begin")
        await slow.execute("select outbox.enqueue('slow', '{}')")
        committed_s = monotonic()
        await enqueue(database)
        await relay.wait_completed(1)
        assert monotonic() - committed_s < 10.0
        await slow.execute("rollback")
        await enqueue(database)
        await relay.wait_completed(2)
        assert monotonic() - committed_s < 20.0
    assert not relay.log.of(SourceDegraded)


async def test_rollback_delivers_nothing(database: str) -> None:
    async with running(database, **ASLEEP) as relay:
        await relay.log.wait_for(SourceReady)
        await fetch(
            database,
            "do $$begin perform outbox.enqueue('test', '{}'); raise 'no'; exception when raise_exception then null; end$$",
        )
        await enqueue(database)
        await relay.wait_completed(1)
    assert len(relay.sink.received) == 1


async def test_scheduled_message_is_delivered_when_it_falls_due_and_not_before(database: str) -> None:
    async with running(database, **ASLEEP) as relay:
        await fetch(database, "select outbox.enqueue('later', '{}', available_at => now() + interval '700 ms')")
        await relay.wait_completed(1)
    [row] = await fetch(
        database, "select extract(epoch from settled_at - available_at)::float8 as late_s from outbox.history"
    )
    assert 0 <= row["late_s"] < 10.0, "not by a poll, which comes once an hour"


async def test_worker_without_a_source_polls(database: str) -> None:
    async with running(database, mode="poll", fallback_interval_s=0.05) as relay:
        await enqueue(database)
        await relay.wait_completed(1)
    assert not relay.log.of(SourceReady)


async def test_lost_listener_is_replaced_and_what_came_meanwhile_is_found(database: str) -> None:
    async with running(database, **ASLEEP) as relay:
        await relay.log.wait_for(SourceReady)
        mark = len(relay.log)
        await fetch(
            database,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'outbox listen' "
            "and datname = current_database()",
        )
        await enqueue(database)
        await relay.log.wait_for(SourceLost, after=mark)
        await relay.log.wait_for(SourceReady, after=mark)
        await relay.wait_completed(1)


async def test_every_connection_cut_again_and_again_loses_and_doubles_nothing(database: str) -> None:
    await enqueue(database, 500)
    async with running(database, concurrency=8, prefetch=8, batch=20) as relay:
        for n in range(1, 6):
            await relay.wait_completed(60 * n)
            await fetch(
                database,
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name like 'outbox%' and datname = current_database()",
            )
            await enqueue(database, 10)
        await relay.log.wait_until(lambda: len(set(relay.sink.ids)) >= 550 or None)
    assert await counts(database) == {"message": 0, "history": 550, "dead_letter": 0}
    [row] = await fetch(database, "select max(attempts) from outbox.history")
    assert row[0] == 0


async def test_worker_waits_for_a_database_that_is_not_there_yet(anyio_backend: object) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        await enqueue(server.dsn())
        await to_thread.run_sync(server.stop)
        async with running(server.dsn(), wait=False) as relay:
            await relay.log.wait_for(DatabaseLost)
            await to_thread.run_sync(server.restart)
            await relay.log.wait_for(WorkerStarted, timeout_s=30)
            assert relay.log.of(DatabaseRestored)
            await relay.wait_completed(1)


async def test_worker_waits_for_a_database_that_takes_no_writes_yet(database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    async with connected(database) as admin:
        await admin.execute(f'alter database "{name}" set default_transaction_read_only = on')
        async with running(database, wait=False) as relay:
            lost = await relay.log.wait_for(DatabaseLost)
            assert "read-only" in lost.error
            await admin.execute("set default_transaction_read_only = off")
            await admin.execute(f'alter database "{name}" reset default_transaction_read_only')
            await enqueue(database)
            await relay.wait_completed(1)


async def test_sink_may_have_a_task_group_of_its_own(database: str) -> None:
    sink = FakeSink()

    @asynccontextmanager
    async def factory(context: SinkContext) -> AsyncIterator[Sink]:
        async with sink.factory(context), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield sink
            tasks.cancel_scope.cancel()

    async with running(database, sink, factory=factory) as relay:
        await enqueue(database)
        await relay.wait_completed(1)
        await relay.stop()


async def test_while_the_sink_opens_the_database_counts_as_connected(database: str) -> None:
    opening = anyio.Event()

    @asynccontextmanager
    async def factory(context: SinkContext) -> AsyncIterator[Sink]:
        opening.set()
        await anyio.sleep_forever()
        yield FakeSink()

    worker = Worker(settings(database), factory, EventLog())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await opening.wait()
        assert await worker.state.ask_database() == {"database": "ok", "schema": "ok"}
        assert await worker.state.ask_sink() == {"sink": "not opened yet"}
        assert "messages" in await worker.state.ask_status()
        tasks.cancel_scope.cancel()


async def test_worker_survives_a_restart_of_its_database(anyio_backend: object) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        async with running(server.dsn(), FakeSink(), **ASLEEP) as relay:
            await enqueue(server.dsn(), 10)
            await relay.wait_completed(10)
            await to_thread.run_sync(server.stop, "immediate")
            await relay.log.wait_for(SourceLost)
            await to_thread.run_sync(server.restart)
            await relay.log.wait_for(SourceReady, after=1, timeout_s=30)
            await enqueue(server.dsn(), 10)
            await relay.wait_completed(20, timeout_s=30)


async def test_stop_before_the_database_is_reached_ends_at_once() -> None:
    async with running("postgresql://postgres@127.0.0.1:1/nothing", wait=False) as relay:
        await relay.log.wait_for(DatabaseLost)
        began_s = monotonic()
        await relay.stop()
        assert monotonic() - began_s < 10.0
    assert not relay.log.of(WorkerStarted)


async def test_stop_at_the_moment_of_registration_ends_the_worker(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = Workers.register

    async def registered(self: Workers, *arguments: Any) -> int:
        worker_id = await register(self, *arguments)
        worker.stop()  # too late to cancel the statement, and there is no relay yet
        return worker_id

    monkeypatch.setattr(Workers, "register", registered)
    log = EventLog()
    worker = Worker(settings(database), FakeSink().factory, log)
    with anyio.fail_after(30):
        await worker.run()
    assert not log.of(Claimed)


async def test_worker_refuses_a_database_without_the_schema(empty_database: str) -> None:
    worker = Worker(settings(empty_database), FakeSink().factory, EventLog())
    with pytest.raises(SchemaError, match="outbox migrate"):
        await worker.run()


async def test_drain_finishes_what_is_in_flight_and_releases_the_rest(database: str) -> None:
    await enqueue(database, 20)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, concurrency=3, prefetch=10) as relay:
        await sink.wait_received(3)
        relay.worker.stop()
        started = await relay.log.wait_for(DrainStarted)
        sink.unblock()
        await relay.wait_ended()
    [drained] = relay.log.of(Drained)
    assert (started.in_flight, drained.abandoned) == (3, 0)
    assert len(sink.received) == len(relay.completed) == 3
    assert {event.why for event in relay.log.of(Released)} == {"drain"}
    assert await counts(database) == {"message": 17, "history": 3, "dead_letter": 0}
    [row] = await fetch(
        database,
        "select count(*) filter (where lease_token is not null), max(deliveries), max(attempts) from outbox.message",
    )
    assert tuple(row) == (0, 0, 0)


async def test_drain_that_takes_too_long_abandons_to_the_lease(database: str) -> None:
    await enqueue(database)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, drain_timeout_s=0.3) as relay:
        await sink.wait_received(1)
        await relay.stop()
    [drained] = relay.log.of(Drained)
    assert drained.abandoned == 1
    [row] = await fetch(database, "select count(*) from outbox.message where lease_token is not null")
    assert row[0] == 1


async def test_stopping_twice_is_stopping_once(database: str) -> None:
    async with running(database) as relay:
        relay.worker.stop()
        relay.worker.stop()
        await relay.wait_ended()
    assert len(relay.log.of(DrainStarted)) == 1


async def test_idle_worker_drains_at_once(database: str) -> None:
    async with running(database, **ASLEEP) as relay:
        began_s = monotonic()
        await relay.stop()
        assert monotonic() - began_s < 10.0


async def test_cancelled_worker_leaves_its_leases_to_expire_and_says_that_it_has_ended(database: str) -> None:
    await enqueue(database, 5)
    sink = FakeSink()
    sink.block()
    worker = Worker(settings(database), sink.factory, EventLog())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await sink.wait_received(5)
        tasks.cancel_scope.cancel()
    assert (await counts(database))["message"] == 5
    assert [row[0] for row in await fetch(database, "select state from outbox.worker")] == ["stopped"]
    assert await fetch(database, query("reset/living_workers")) == []


async def test_drain_ends_although_the_database_is_gone(anyio_backend: object) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        await enqueue(server.dsn(), 3)
        sink = FakeSink()
        sink.block()
        async with running(server.dsn(), sink, drain_timeout_s=1.0) as relay:
            await sink.wait_received(3)
            await to_thread.run_sync(server.stop, "immediate")
            sink.unblock()
            await relay.stop()
            assert relay.log.of(Drained)


async def test_black_hole_under_all_connections_is_noticed_and_left_behind(database: str) -> None:
    """A partition, or a failover that resets nothing: the sockets and the driver never report it."""
    async with tcp_proxy(database) as proxy, running(proxy.url(database)) as relay:
        await relay.log.wait_for(SourceReady)
        await enqueue(database)
        await relay.wait_completed(1)
        mark = len(relay.log)
        proxy.stall()
        await enqueue(database)
        await relay.log.wait_for(DatabaseLost, after=mark, timeout_s=40)
        proxy.cut()
        proxy.flow()
        await relay.wait_completed(2, timeout_s=40)
