"""Of transactions in flight together one notifies. The others' messages must still come at once."""

from __future__ import annotations

from time import monotonic

import pytest

from outbox.events import SourceDegraded, SourceReady
from outbox.polling import _FASTEST_S
from tests.support.running import enqueue, running
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(60)
ENQUEUE = "select outbox.enqueue('test', '{}')"
SOON_S = _FASTEST_S + 0.1


async def notifications_of_two(database: str, *, first_ends: str) -> int:
    """How many notifications arrive of two transactions in flight together."""
    heard: list[object] = []
    async with connected(database) as listener, connected(database) as one, connected(database) as other:
        await listener.add_listener("outbox_wakeup", lambda *_: heard.append(_))
        await one.execute("begin")
        await one.execute(ENQUEUE)
        await other.execute("begin")
        await other.execute(ENQUEUE)
        await one.execute(first_ends)
        await other.execute("commit")
        await listener.execute("select 1")  # notifications come before the answer
    return len(heard)


async def test_of_two_in_flight_one_notifies(database: str) -> None:
    assert await notifications_of_two(database, first_ends="commit") == 1


async def test_of_two_one_after_the_other_both_notify(database: str) -> None:
    heard: list[object] = []
    async with connected(database) as listener, connected(database) as one:
        await listener.add_listener("outbox_wakeup", lambda *_: heard.append(_))
        await one.execute(ENQUEUE)
        await one.execute(ENQUEUE)
        await listener.execute("select 1")
    assert len(heard) == 2


async def test_message_that_left_its_notification_to_an_earlier_commit_is_delivered_at_once(database: str) -> None:
    async with running(database, poll_interval_s=3600.0, fallback_interval_s=3600.0) as relay:
        await relay.log.wait_for(SourceReady)
        async with connected(database) as one, connected(database) as other:
            await one.execute("begin")
            await one.execute(ENQUEUE)
            await other.execute("begin")
            await other.execute(ENQUEUE)
            await one.execute("commit")
            await relay.wait_completed(1)
            await other.execute("select pg_sleep(1.5)")  # a long transaction: the worker would be asleep by now
            committed_s = monotonic()
            await other.execute("commit")
            await relay.wait_completed(2)
            assert monotonic() - committed_s < SOON_S
        await enqueue(database)
        await relay.wait_completed(3)
    assert not relay.log.of(SourceDegraded), "LISTEN did nothing wrong"


async def test_worker_sleeps_again_once_nobody_is_in_flight(database: str) -> None:
    async with connected(database) as watcher, running(database, poll_interval_s=3600.0) as relay:
        await relay.log.wait_for(SourceReady)
        async with connected(database) as one, connected(database) as other:
            await one.execute("begin")
            await one.execute(ENQUEUE)
            await other.execute("begin")
            await other.execute(ENQUEUE)
            await one.execute("commit")
            await other.execute("commit")
        await relay.wait_completed(2)
        locks = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
        assert await watcher.fetchval(locks) == 0
