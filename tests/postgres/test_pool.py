"""The pool under statements that do not come back: every call ends, and what is given up is given up on both sides."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio
import pytest

from outbox.model.errors import DatabaseUnavailable
from outbox.postgres.pool import open_pool
from outbox.store.messages import Store
from outbox.store.rules import Rules
from tests.support.eventually import eventually
from tests.support.running import enqueue
from tests.support.sql import connected
from tests.support.tcp_proxy import tcp_proxy


async def test_claim_that_was_given_up_leases_nothing(database: str) -> None:
    """Else it would go on in the server and lease messages for no worker, and they would look like killers of workers."""
    await enqueue(database)
    async with (
        connected(database) as other,
        tcp_proxy(database) as proxy,
        open_pool(proxy.url(database), size=2, application_name="given up", statement_timeout_s=2) as pool,
    ):

        async def waiting() -> int:
            return await other.fetchval(
                "select count(*) from pg_stat_activity where application_name = 'given up' and wait_event_type = 'Lock'"
            )

        async def claim() -> None:
            with pytest.raises(DatabaseUnavailable):
                await Store(pool, "outbox").claim(10, lease_s=60, worker_id=1)

        transaction = other.transaction()
        await transaction.start()
        await other.execute("lock table outbox.message in access exclusive mode")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim)
            await eventually(waiting, lambda n: n == 1)
            proxy.stall()  # the claim waits in the server, which cannot hear that we gave it up
        await eventually(waiting, lambda n: n == 0)
        await transaction.rollback()
        assert await other.fetchval("select deliveries from outbox.message") == 0


async def test_slow_statement_has_a_bound_of_its_own(database: str) -> None:
    async with open_pool(database, size=1, application_name="test", statement_timeout_s=1) as pool:
        rows = await pool.fetch_slowly("select pg_sleep(1.2)", timeout_s=20)
        assert len(rows) == 1


async def test_every_call_into_a_black_hole_ends(database: str) -> None:
    async with (
        tcp_proxy(database) as proxy,
        open_pool(proxy.url(database), size=2, application_name="test", statement_timeout_s=2) as pool,
    ):
        await Rules(pool, "outbox").control()
        proxy.stall()
        with anyio.fail_after(40):
            for _ in range(4):  # the first two lose the connections that are open, the others find none
                with pytest.raises(DatabaseUnavailable):
                    await Rules(pool, "outbox").control()
        proxy.flow()
        with anyio.fail_after(40):
            await Rules(pool, "outbox").control()


async def test_sessions_are_set_up_for_small_statements_on_any_database(database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    async with connected(database) as admin:
        await admin.execute(f"alter database \"{name}\" set default_transaction_isolation = 'repeatable read'")
        await admin.execute(f'alter database "{name}" set jit = on')
    async with open_pool(database, size=1, application_name="test", statement_timeout_s=10, durable=False) as pool:
        settings = ("jit", "default_transaction_isolation", "enable_seqscan", "synchronous_commit", "statement_timeout")
        shown = [await pool.fetchval(f"show {setting}") for setting in settings]
    assert shown == ["off", "read committed", "off", "off", "9s"]


async def test_every_claim_is_planned_once_for_a_connection(database: str) -> None:
    """To plan the longest of them takes longer than to carry it out."""
    async with open_pool(database, size=1, application_name="test", statement_timeout_s=10) as pool:
        store = Store(pool, "outbox")
        for _ in range(2):
            await store.claim(1, lease_s=60, worker_id=1)
            await store.claim_ruled(1, lease_s=60, worker_id=1)
            await store.claim_restricted(1, lease_s=60, worker_id=1, suspect_after=3)
        kept = "select count(*) from pg_prepared_statements where statement like '%lease_token%' and generic_plans = 2"
        assert await pool.fetchval(kept) == 3
