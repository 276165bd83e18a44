"""LISTEN under every fault: noticed in time, healed by itself, nothing lost, and how late the worst message was.

Each row of the matrix has the same course: the worker delivers at once, the fault comes, messages go on being
committed, the worker notices and delivers them by polling, the fault ends, and messages are announced again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

import anyio
import pytest
from anyio import to_thread

from outbox.model.events import SourceDegraded, SourceLost, SourceReady, SourceRestored
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.running import Running, counts, enqueue, fetch, running
from tests.support.sql import connected
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(120)

NOTICED_WITHIN_S = 5.0
BUSY_MACHINE_S = 3.0
"""What a shared machine under other tests may add to any of our times."""
POLLING_S = 0.3
CROWD, LISTENED_S = 6, 10.0
SETTINGS = {"mode": "listen", "poll_interval_s": 30.0, "fallback_interval_s": POLLING_S}
Act = Callable[[], Awaitable[None]]


async def delivered(relay: Running, dsn: str) -> float:
    """Commit one message and return after how many seconds it was delivered."""
    before = len(relay.completed)
    began_s = monotonic()
    await enqueue(dsn)
    await relay.wait_completed(before + 1, timeout_s=40)
    return monotonic() - began_s


async def go_through(relay: Running, dsn: str, *, break_it: Act, repair: Act) -> None:
    """The course of every row, and what must hold in it."""
    await relay.log.wait_for(SourceReady, timeout_s=20)
    await delivered(relay, dsn)
    mark = len(relay.log)
    broken_s = monotonic()
    await break_it()
    await relay.log.wait_for(SourceLost, after=mark, timeout_s=NOTICED_WITHIN_S + BUSY_MACHINE_S)
    assert monotonic() - broken_s < NOTICED_WITHIN_S + BUSY_MACHINE_S
    for _ in range(3):
        assert await delivered(relay, dsn) < POLLING_S + 0.1 + BUSY_MACHINE_S
    await repair()
    await relay.log.wait_for(SourceReady, after=mark, timeout_s=30)
    await delivered(relay, dsn)
    assert len(relay.sink.ids) == len(set(relay.sink.ids)) == len(relay.completed)
    assert not relay.log.of(SourceDegraded)


async def nothing() -> None:
    """Some faults end by themselves."""


@asynccontextmanager
async def listening_through_a_proxy(database: str) -> AsyncIterator[tuple[Running, TcpProxy]]:
    """A worker of which only the listening connection runs through the proxy."""
    async with tcp_proxy(database) as proxy, running(database, listen_url=proxy.url(database), **SETTINGS) as relay:
        yield relay, proxy


async def test_half_open_connection(database: str) -> None:
    async with listening_through_a_proxy(database) as (relay, proxy):

        async def stall() -> None:
            proxy.stall()

        async def flow() -> None:
            proxy.cut()
            proxy.flow()

        await go_through(relay, database, break_it=stall, repair=flow)


async def test_cut_and_refused_connection(database: str) -> None:
    async with listening_through_a_proxy(database) as (relay, proxy):
        await go_through(relay, database, break_it=proxy.refuse, repair=proxy.accept)


async def test_terminated_backend(database: str) -> None:
    async with running(database, **SETTINGS) as relay:

        async def terminate() -> None:
            await fetch(
                database,
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'outbox listen' and datname = current_database()",
            )

        await relay.log.wait_for(SourceReady)
        await delivered(relay, database)
        mark = len(relay.log)
        began_s = monotonic()
        await terminate()
        await relay.log.wait_for(SourceLost, after=mark)
        assert monotonic() - began_s < 1.0 + BUSY_MACHINE_S
        await relay.log.wait_for(SourceReady, after=mark)
        await delivered(relay, database)


async def test_listener_that_lost_its_channel(database: str) -> None:
    """A pooler in session mode that resets the session, or an UNLISTEN: the connection itself is well."""
    async with running(database, **SETTINGS) as relay:
        await relay.log.wait_for(SourceReady)
        source = relay.worker.state.parts.selection._sources["listen"]
        connection = source._connection  # type: ignore[attr-defined]

        async def unlisten() -> None:
            await connection.execute("unlisten *")

        await go_through(relay, database, break_it=unlisten, repair=nothing)


async def test_server_that_restarts(anyio_backend: object) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        async with running(server.dsn(), **SETTINGS) as relay:
            await relay.log.wait_for(SourceReady)
            await delivered(relay, server.dsn())
            mark = len(relay.log)
            await to_thread.run_sync(server.stop, "immediate")
            await relay.log.wait_for(SourceLost, after=mark)
            await to_thread.run_sync(server.restart)
            await relay.log.wait_for(SourceReady, after=mark, timeout_s=30)
            await delivered(relay, server.dsn())


async def test_trigger_that_is_switched_off_is_found_by_what_polls_find(database: str) -> None:
    """The channel is sound, the probes arrive, and no message is announced."""
    async with running(database, **SETTINGS | {"poll_interval_s": 0.5}) as relay:
        await relay.log.wait_for(SourceReady)
        await fetch(database, "alter table outbox.message disable trigger wakeup")
        with anyio.fail_after(30):
            while not relay.log.of(SourceDegraded):  # not before LISTEN's grace after its last ring
                await delivered(relay, database)
        assert await delivered(relay, database) < POLLING_S + 0.1 + BUSY_MACHINE_S
        await fetch(database, "alter table outbox.message enable trigger wakeup")
        while not relay.log.of(SourceRestored):
            await delivered(relay, database)


@needs_pgbouncer
async def test_transaction_pooler_is_named_once_with_its_cure_and_delivers_by_polling(
    database: str, postgres: PostgresServer
) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        async with running(bouncer.led(database), concurrency=8, **SETTINGS) as relay:
            lost = await relay.log.wait_for(SourceLost)
            assert "there is a pooler in transaction mode" in lost.error
            assert "OUTBOX_LISTEN_URL" in lost.error
            await enqueue(bouncer.led(database), 200)
            await relay.wait_completed(200, timeout_s=30)
            assert await delivered(relay, database) < POLLING_S + 0.1 + BUSY_MACHINE_S
            await relay.log.wait_until(lambda: len(relay.completed) == 201 or None)
            assert len(relay.log.of(SourceLost)) == 1
    assert await counts(database) == {"message": 0, "history": 201, "dead_letter": 0}


@needs_pgbouncer
async def test_listen_url_leads_around_the_pooler(database: str, postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        async with running(bouncer.led(database), listen_url=database, mode="listen", poll_interval_s=3600.0) as relay:
            await relay.log.wait_for(SourceReady)
            for _ in range(3):
                await delivered(relay, database)
            assert not relay.log.of(SourceLost)


@needs_pgbouncer
async def test_session_pooler_passes_everything(database: str, postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "session") as bouncer:
        async with running(bouncer.led(database), mode="listen", poll_interval_s=3600.0) as relay:
            await relay.log.wait_for(SourceReady)
            for _ in range(3):
                await delivered(relay, database)


async def test_crowd_of_idle_workers_hardly_probes_more_than_one(database: str) -> None:
    """A source asks for a sign of life after three seconds of silence, and another's probe breaks the silence too.

    A source that wakes while a probe is on its way sends one as well, so that now and then all six do.
    """
    heard: list[float] = []
    async with AsyncExitStack() as stack:
        for number in range(CROWD):
            relay = await stack.enter_async_context(running(database, worker_name=f"w{number}", **SETTINGS))
            await relay.log.wait_for(SourceReady)
        listener = await stack.enter_async_context(connected(database))
        await listener.add_listener("outbox_wakeup", lambda *_: heard.append(monotonic()))
        await anyio.sleep(LISTENED_S)  # the time over which the probes are counted
    silences = LISTENED_S / 3.3
    assert silences - 1 <= len(heard) <= 0.8 * CROWD * silences, "each for itself would have probed in every silence"
