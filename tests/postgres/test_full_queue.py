"""A session that listens and stays in a transaction fills the server's queue of notifications: no producer fails for it."""

from __future__ import annotations

import json

import asyncpg
import pytest

from outbox.store.migrations import migrate
from outbox.store.sql import query
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.eventually import eventually
from tests.support.examining import examined, wrong
from tests.support.sql import connected
from tests.support.versions import needs_postgres

SMALL_QUEUE = {"max_notify_queue_pages": "64"}
"""Half a MiB, the least that the server takes. Older versions have no such setting."""


@needs_postgres(17)
async def test_producers_and_switches_commit_while_the_notification_queue_is_full() -> None:
    with PostgresServer.start(fsync=False, settings=SMALL_QUEUE) as server:
        await migrate(server.dsn())
        async with connected(server.dsn()) as idle, connected(server.dsn()) as db:
            await idle.execute("listen other")
            await idle.execute("begin; select 1")
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                while True:
                    await db.execute("select pg_notify('noise', repeat('x', 7000) || i) from generate_series(1, 4) i")
            for _ in range(3):
                await db.execute("select outbox.enqueue('t'), outbox.wake(), outbox.probe()")
                await db.execute("""select outbox.set_switch('mode', '"poll"')""")
                await db.execute("select outbox.pause('a'), outbox.resume('a')")
            assert await db.fetchval("select count(*) from outbox.message") == 3
            facts = json.loads(await db.fetchval(query("status/facts"), 1000))
            assert facts["notifications"] > 0.9
            found = wrong(await examined(server.dsn()))["notification queue"]
            assert f"process {idle.get_server_pid()} of a program without a name" in found.detail
            await db.execute(str(found.cure))
            await db.execute("listen other; unlisten other")  # who comes next empties the queue
            await eventually(lambda: db.fetchval("select pg_notification_queue_usage()"), lambda usage: usage < 0.1)
            assert "notification queue" not in wrong(await examined(server.dsn()))
