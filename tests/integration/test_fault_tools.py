"""The tools that break things really break them."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.sql import connected
from tests.support.tcp_proxy import tcp_proxy
from workflows.embedded import PostgresServer

pytestmark = pytest.mark.timeout(60)


async def test_cut_connection_is_seen_at_once(database: str) -> None:
    async with tcp_proxy(database) as proxy:
        connection = await asyncpg.connect(proxy.url(database), timeout=10)
        closed = anyio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        proxy.cut()
        with anyio.fail_after(5):
            await closed.wait()


async def test_stalled_connection_answers_nothing_and_goes_on_when_it_flows(database: str) -> None:
    async with tcp_proxy(database) as proxy:
        connection = await asyncpg.connect(proxy.url(database), timeout=10)
        proxy.stall()
        answer: list[int] = []

        async def ask() -> None:
            answer.append(await connection.fetchval("select 1"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.move_on_after(0.3):
                while not answer:
                    await anyio.sleep(0.01)
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
@pytest.mark.parametrize(("mode", "arrives"), [("transaction", False), ("session", True)])
async def test_pooler_passes_notifications_in_session_mode_only(
    database: str, postgres: PostgresServer, mode: str, arrives: bool
) -> None:
    heard = anyio.Event()
    with pgbouncer(postgres, mode) as bouncer:  # type: ignore[arg-type]
        listener = await asyncpg.connect(bouncer.led(database), timeout=10, statement_cache_size=0)
        await listener.add_listener("outbox_wakeup", lambda *_: heard.set())
        async with connected(database) as other:
            await other.execute("select outbox.probe()")
        with anyio.move_on_after(5 if arrives else 0.5):
            await heard.wait()
        assert heard.is_set() == arrives
        assert listener.get_server_pid() != await listener.fetchval("select pg_backend_pid()")
        listener.terminate()
