"""The tools that break things really break them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import asyncpg
import pytest
from anyio import to_thread

from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.process import STOP_TIMEOUT_S
from tests.support.eventually import eventually
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.sql import connected
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that sends back what it gets: its URL, and its connections so far."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionResetError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers
    finally:
        server.close()


async def connections_accepted(proxy: TcpProxy, accepted: int) -> None:
    async def look() -> int:
        return proxy.accepted

    await eventually(look, lambda n: n >= accepted, timeout_s=5)


async def over(proxy: TcpProxy) -> None:
    async def look() -> int:
        return proxy.connections

    await eventually(look, lambda n: n == 0, timeout_s=5)


async def test_cut_connection_is_seen_at_once(database: str) -> None:
    async with tcp_proxy(database) as proxy:
        connection = await asyncpg.connect(proxy.url(database), timeout=10)
        closed = anyio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        proxy.cut()
        with anyio.fail_after(5):
            await closed.wait()


async def test_cut_resets_the_connection() -> None:
    async with echo() as (url, _), tcp_proxy(url) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"here")
        with anyio.fail_after(5):
            assert await reader.readexactly(4) == b"here"
            assert (proxy.sent, proxy.received, proxy.connections) == (4, 4, 1)
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            await over(proxy)
        writer.close()


async def test_cut_in_a_stall_leaves_nothing_to_flow() -> None:
    async with echo() as (url, there), tcp_proxy(url) as proxy:
        before, first = await asyncio.open_connection(proxy.host, proxy.port)
        first.write(b"x")
        with anyio.fail_after(5):
            assert await before.readexactly(1) == b"x"
        proxy.stall()
        first.write(b"held")
        _, second = await asyncio.open_connection(proxy.host, proxy.port)
        await connections_accepted(proxy, 2)
        proxy.cut()
        await over(proxy)
        proxy.flow()
        # A later connection is a fence: what was held would have gone before it.
        reader, third = await asyncio.open_connection(proxy.host, proxy.port)
        third.write(b"y")
        with anyio.fail_after(5):
            assert await reader.readexactly(1) == b"y"
        assert len(there) == 2
        assert proxy.bytes == 4
        for writer in (first, second, third):
            writer.close()


async def test_new_connections_lead_to_the_new_target_and_open_ones_stay(database: str) -> None:
    async with echo() as (url, _), tcp_proxy(database) as proxy, connected(proxy.url(database)) as connection:
        host, _, port = url.removeprefix("tcp://").partition(":")
        proxy.retarget(host, int(port))
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"echo")
        with anyio.fail_after(5):
            assert await reader.readexactly(4) == b"echo"
        assert await connection.fetchval("select 1") == 1
        writer.close()


async def test_stalled_connection_answers_nothing_and_goes_on_when_it_flows(database: str) -> None:
    async with tcp_proxy(database) as proxy:
        connection = await asyncpg.connect(proxy.url(database), timeout=10)
        proxy.stall()
        answer: list[int] = []
        answered = anyio.Event()

        async def ask() -> None:
            answer.append(await connection.fetchval("select 1"))
            answered.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.move_on_after(0.3):
                await answered.wait()
            assert not answer
            assert not connection.is_closed()
            proxy.flow()
        assert answer == [1]
        await connection.close(timeout=5)


async def test_refusing_proxy_refuses_and_accepts_at_the_same_address(database: str) -> None:
    async with tcp_proxy(database) as proxy:
        url = proxy.url(database)
        await proxy.refuse()
        with pytest.raises(OSError):
            await asyncpg.connect(url, timeout=5)
        await proxy.accept()
        async with connected(url) as connection:
            assert await connection.fetchval("select 1") == 1


@needs_pgbouncer
async def test_pooler_in_transaction_mode_throws_notifications_away(database: str, postgres: PostgresServer) -> None:
    heard: list[object] = []
    with pgbouncer(postgres, "transaction") as bouncer:
        listener = await asyncpg.connect(bouncer.led(database), timeout=10, statement_cache_size=0)
        await listener.add_listener("outbox_wakeup", lambda *_: heard.append(1))
        assert listener.get_server_pid() != await listener.fetchval("select pg_backend_pid()")
        async with connected(database) as other:
            await other.execute("select outbox.probe()")

        async def look() -> str:
            return bouncer.log()

        # It says so itself; until then the notification could still be on its way.
        await eventually(look, lambda log: "got packet 'A' from server when not linked" in log, timeout_s=10)
        assert await listener.fetchval("select 1") == 1  # an answer later than anything that it passed on
        assert not heard
        listener.terminate()


@needs_pgbouncer
async def test_pooler_in_session_mode_passes_notifications(database: str, postgres: PostgresServer) -> None:
    heard = anyio.Event()
    with pgbouncer(postgres, "session") as bouncer:
        listener = await asyncpg.connect(bouncer.led(database), timeout=10, statement_cache_size=0)
        await listener.add_listener("outbox_wakeup", lambda *_: heard.set())
        assert listener.get_server_pid() != await listener.fetchval("select pg_backend_pid()")
        async with connected(database) as other:
            await other.execute("select outbox.probe()")
        with anyio.fail_after(10):
            await heard.wait()
        listener.terminate()


@needs_pgbouncer
async def test_pooler_restarts_under_its_clients(database: str, postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "session") as bouncer:
        client = await asyncpg.connect(bouncer.led(database), timeout=10, statement_cache_size=0)
        assert await client.execute("select 1") == "SELECT 1"
        began_s = anyio.current_time()
        await to_thread.run_sync(bouncer.restart)
        assert anyio.current_time() - began_s < STOP_TIMEOUT_S  # it ended by itself, and was not killed
        async with connected(bouncer.led(database)) as another:
            assert await another.execute("select 1") == "SELECT 1"
        client.terminate()


@needs_pgbouncer
async def test_pooler_has_its_console(postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        async with connected(bouncer.dsn("pgbouncer")) as console:
            assert await console.execute("show version") == "SHOW"
