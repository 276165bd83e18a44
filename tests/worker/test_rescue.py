"""A dead worker's messages are taken over at once; a living one's never before its leases end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import asyncpg
import pytest
from anyio import to_thread

from outbox.model.events import Drained, LeaseLost, PresenceLost, PresenceShown, Rescued, SourceReady
from outbox.model.sink import Delivered
from outbox.store.migrations import migrate
from outbox.wakeup.doorbell import Wakeup
from outbox.worker.rescue import Rescue
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.event_log import EventLog
from tests.support.eventually import eventually
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.processes import WorkerProcess, worker_process
from tests.support.running import Running, counts, enqueue, fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import Clock, clock, connected
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(120)

AT_ONCE_S = 10.0
"""Not by the lease, which has half a minute. How fast it is on a quiet machine, `outbox bench takeover` measures."""
ENOUGH = 4
"""Looks. It takes two, a second apart, to end a worker's leases."""
HANGING = {"OUTBOX_SINK": "outbox_bench.load.nullsink:hanging_sink"}
SHORT = {"OUTBOX_LEASE_S": "12", "OUTBOX_DELIVER_TIMEOUT_S": "7"}
LOCK_HOLDER = """
    select l.pid from pg_locks l
    join outbox.worker w on w.presence = (l.classid::bigint << 32) | l.objid::bigint
    where l.locktype = 'advisory' and l.objsubid = 1 and l.database = (select oid from pg_database where datname = current_database())
"""


async def leased(dsn: str) -> int:
    return int((await fetch(dsn, "select count(*) from outbox.message where leased_until > now()"))[0][0])


async def holds(dsn: str, count: int) -> None:
    """Return once so many messages are leased, or more: those of a key go together."""
    await eventually(lambda: leased(dsn), lambda n: n >= count)


@asynccontextmanager
async def victim(dsn: str, directory: Path, count: int, **environment: str) -> AsyncIterator[WorkerProcess]:
    """A worker process that holds so many messages, which are there already, and delivers none."""
    with worker_process(directory, "victim", **{"DATABASE_URL": dsn, **HANGING, **environment}) as process:
        await holds(dsn, count)
        yield process


async def takes_over(survivor: Running, process: WorkerProcess, count: int) -> float:
    """Kill, and return the seconds until the survivor has completed everything."""
    began_s = monotonic()
    process.send(signal.SIGKILL)
    await survivor.wait_completed(count)
    return monotonic() - began_s


async def test_messages_of_a_killed_worker_are_delivered_at_once(database: str, tmp_path: Path) -> None:
    ids = await enqueue(database, 100)
    async with victim(database, tmp_path, 100) as process, running(database) as survivor:
        await survivor.log.wait_for(SourceReady)
        assert await takes_over(survivor, process, 100) < AT_ONCE_S
    assert sorted(survivor.sink.ids) == sorted(ids)
    assert {m.deliveries for m in survivor.sink.received} == {2}, "the first delivery stays counted, as evidence"
    [rescued] = survivor.log.of(Rescued)
    assert rescued == Rescued("victim", 100)


async def test_messages_with_keys_and_tenants_are_taken_over_too_in_order(database: str, tmp_path: Path) -> None:
    await fetch(
        database,
        """select outbox.enqueue('t', '{}', key => 'k' || k, tenant => case when k < 3 then 't' end)
           from generate_series(1, 3) n, generate_series(1, 5) k""",
    )
    await fetch(database, "select outbox.enqueue('t', '{}', tenant => 'u') from generate_series(1, 5)")
    async with victim(database, tmp_path, 10) as process, running(database, worker_name="b") as survivor:
        await survivor.log.wait_for(SourceReady)
        assert await takes_over(survivor, process, 20) < AT_ONCE_S  # each key's messages one after the other
    keyed = [(m.key, m.seq) for m in survivor.sink.received if m.key is not None]
    for key in {key for key, _ in keyed}:
        numbers = [seq for k, seq in keyed if k == key]
        assert numbers == sorted(numbers)
        assert len(numbers) == 3
    [rescued] = survivor.log.of(Rescued)
    assert rescued.worker == "victim"
    assert rescued.leases >= 10, "what it was at, and what it had taken together with that"


async def test_worker_that_starts_after_the_death_takes_over_too(database: str, tmp_path: Path) -> None:
    """A lone worker that is killed and started again."""
    await enqueue(database, 10)
    async with victim(database, tmp_path, 10) as process:
        process.send(signal.SIGKILL)
        process.wait()
    async with running(database) as survivor:
        await survivor.wait_completed(10, timeout_s=AT_ONCE_S)


async def test_worker_without_a_source_takes_over_too(database: str, tmp_path: Path) -> None:
    await enqueue(database, 10)
    async with victim(database, tmp_path, 10) as process, running(database, mode="poll") as survivor:
        assert await takes_over(survivor, process, 10) < AT_ONCE_S


@pytest.mark.slow("outlasts a lease")
async def test_frozen_worker_keeps_its_messages_until_its_leases_end(database: str, tmp_path: Path) -> None:
    await enqueue(database, 5)
    async with victim(database, tmp_path, 5, **SHORT) as process, running(database) as survivor:
        process.send(signal.SIGSTOP)
        [row] = await fetch(database, "select min(leased_until) from outbox.message")
        await survivor.wait_completed(5, timeout_s=40)
    [claimed] = await fetch(database, "select min(claimed_at) from outbox.history")
    assert claimed[0] >= row[0]
    assert not survivor.log.of(Rescued)


async def test_deliveries_abandoned_by_a_drain_are_taken_over_at_once(database: str) -> None:
    await enqueue(database, 3)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, drain_timeout_s=0.3) as leaving:
        await sink.wait_received(3)
        async with running(database, worker_name="other") as other:
            await leaving.stop()
            assert leaving.log.of(Drained)[0].abandoned == 3
            await other.wait_completed(3, timeout_s=5)


async def test_worker_that_leaves_nothing_behind_is_forgotten(database: str) -> None:
    async with running(database) as relay:
        await enqueue(database)
        await relay.wait_completed(1)
        assert (await fetch(database, LOCK_HOLDER)) != []
        await relay.stop()
    assert [tuple(row) for row in await fetch(database, "select presence from outbox.worker")] == [(None,)]


# No live worker loses its leases


class Looks:
    """Counts how often each worker here has looked whether others are absent, and acted on what it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._done: Counter[int] = Counter()
        self._changed = anyio.Event()
        check = Rescue._check

        async def counted(rescue: Rescue) -> None:
            await check(rescue)
            self._done[rescue._worker_id] += 1
            self._changed.set()
            self._changed = anyio.Event()

        monkeypatch.setattr(Rescue, "_check", counted)

    async def of(self, dsn: str, name: str, count: int) -> None:
        """Return once this worker has looked so many times more, each of them from now on."""
        [row] = await fetch(dsn, "select worker_id from outbox.worker where name = $1", name)
        until = self._done[row[0]] + count + 1  # one may be under way
        with anyio.fail_after(30):
            while self._done[row[0]] < until:
                await self._changed.wait()


@pytest.fixture
def looks(anyio_backend: object, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@asynccontextmanager
async def two(busy_dsn: str, idle_dsn: str, count: int) -> AsyncIterator[tuple[Running, Running]]:
    """A worker that holds so many messages in its sink, and one that watches it."""
    await enqueue(idle_dsn, count)
    sink = FakeSink()
    sink.block()
    times: dict[str, Any] = {"deliver_timeout_s": 40.0, "lease_s": 60.0}
    async with running(busy_dsn, sink, worker_name="busy", **times) as busy:
        await sink.wait_received(count)
        async with running(idle_dsn, worker_name="idle", **times) as idle:
            await busy.log.wait_for(SourceReady)
            await idle.log.wait_for(SourceReady)
            yield busy, idle


async def completes_alone(busy: Running, idle: Running, count: int) -> None:
    busy.sink.unblock()
    await busy.wait_completed(count)
    assert len(busy.completed) == len(busy.sink.received) == count
    assert not idle.sink.received
    assert not idle.log.of(Rescued)
    assert not busy.log.of(LeaseLost)


async def test_restart_of_the_database_costs_no_worker_its_leases(looks: Looks) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        async with two(server.dsn(), server.dsn(), 50) as (busy, idle):
            await to_thread.run_sync(server.stop)
            await to_thread.run_sync(server.restart)
            for worker in (busy, idle):
                await worker.log.wait_for(SourceReady, after=len(worker.log.of(SourceReady)), timeout_s=30)
                await worker.log.wait_until(lambda w=worker: len(w.log.of(PresenceShown)) >= 2, timeout_s=30)
            await looks.of(server.dsn(), "idle", ENOUGH)
            await completes_alone(busy, idle, 50)


async def test_worker_that_comes_back_late_after_a_restart_is_not_robbed(looks: Looks) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        async with (
            tcp_proxy(server.dsn()) as proxy,
            two(proxy.url(server.dsn()), server.dsn(), 10) as (busy, idle),
        ):
            await proxy.refuse()
            await to_thread.run_sync(server.stop)
            await to_thread.run_sync(server.restart)
            await idle.log.wait_until(lambda: len(idle.log.of(PresenceShown)) >= 2, timeout_s=30)
            async with running(server.dsn(), worker_name="fresh") as fresh:  # has seen no trouble itself
                await fresh.log.wait_for(SourceReady)
                await looks.of(server.dsn(), "fresh", ENOUGH)
                assert not fresh.sink.received
                await proxy.accept()
                await busy.log.wait_until(lambda: len(busy.log.of(PresenceShown)) >= 2, timeout_s=30)
                await completes_alone(busy, idle, 10)


async def test_worker_that_loses_its_session_again_and_again_is_not_robbed(database: str, looks: Looks) -> None:
    async with two(database, database, 10) as (busy, idle):
        for n in range(2, 6):
            await fetch(database, f"select pg_terminate_backend(pid) from ({LOCK_HOLDER} and w.name = 'busy') l")
            await busy.log.wait_until(lambda n=n: len(busy.log.of(PresenceShown)) >= n)
            await looks.of(database, "idle", 1)
        assert not busy.log.of(PresenceLost)
        await completes_alone(busy, idle, 10)


async def test_session_that_died_in_silence_is_replaced_while_messages_are_held(database: str) -> None:
    """The server has ended it, and the news got lost on the way: a firewall that forgets idle connections."""
    async with tcp_proxy(database) as proxy, two(proxy.url(database), database, 10) as (busy, idle):
        assert len(busy.log.of(PresenceShown)) == 1
        proxy.stall()
        await busy.log.wait_for(PresenceLost, timeout_s=20)  # and it gets no other one
        proxy.cut()
        proxy.flow()
        await busy.log.wait_until(lambda: len(busy.log.of(PresenceShown)) >= 2, timeout_s=20)
        await completes_alone(busy, idle, 10)


async def test_worker_taken_for_dead_shows_itself_again(database: str) -> None:
    async with two(database, database, 10) as (busy, idle):
        await fetch(database, "update outbox.worker set presence = null where name = 'busy'")
        await busy.log.wait_until(lambda: len(busy.log.of(PresenceShown)) >= 2)
        [row] = await fetch(database, "select presence from outbox.worker where name = 'busy'")
        assert row[0] is not None
        await completes_alone(busy, idle, 10)


# Behind poolers


@pytest.mark.slow("outlasts a lease")
@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_behind_a_pooler_the_end_of_the_lease_decides(
    database: str, postgres: PostgresServer, tmp_path: Path, mode: Any
) -> None:
    await enqueue(database, 10)
    with pgbouncer(postgres, mode) as bouncer:
        led = bouncer.led(database)
        async with victim(led, tmp_path, 10, **SHORT) as process, running(led, mode="poll") as survivor:
            lost = await survivor.log.wait_for(PresenceLost)
            assert "OUTBOX_LISTEN_URL" in lost.error
            [row] = await fetch(database, "select min(leased_until) from outbox.message")
            process.send(signal.SIGKILL)
            await survivor.wait_completed(10, timeout_s=40)
    [claimed] = await fetch(database, "select min(claimed_at) from outbox.history")
    assert claimed[0] >= row[0]
    assert not survivor.log.of(Rescued)
    assert all(row[0] is None for row in await fetch(database, "select presence from outbox.worker"))


@pytest.mark.slow("outlasts a lease")
@needs_pgbouncer
async def test_a_way_around_the_pooler_shows_presence(database: str, postgres: PostgresServer, tmp_path: Path) -> None:
    await enqueue(database, 10)
    with pgbouncer(postgres, "transaction") as bouncer:
        led = bouncer.led(database)
        async with (
            victim(led, tmp_path, 10, OUTBOX_LISTEN_URL=database) as process,
            running(led, mode="poll") as survivor,
        ):
            assert await takes_over(survivor, process, 10) < AT_ONCE_S


# The statements


@pytest.fixture
async def watcher(database: str) -> AsyncIterator[Clock]:
    async with clock(database, name="watcher") as worker:
        yield worker


async def join(db: asyncpg.Connection[asyncpg.Record], name: str, presence: int, *, alive: bool) -> int:
    """Register a worker with a session that holds a lock, or does not any more."""
    if alive:
        await db.execute("select pg_advisory_lock($1)", presence)
    return int(
        await db.fetchval(
            "insert into outbox.worker (name, version, presence, present_at) values ($1, '', $2, now()) returning worker_id",
            name,
            presence,
        )
    )


async def test_only_the_absent_are_absent(database: str, watcher: Clock) -> None:
    async with connected(database) as db:
        living = await join(db, "living", 101, alive=True)
        dead = await join(db, "dead", 102, alive=False)
        assert await watcher.workers.absent(watcher.worker_id, grace_s=0) == {(dead, 102)}
        assert await watcher.workers.absent(dead, grace_s=0) == set(), "no worker looks for itself"
        await db.execute("update outbox.worker set present_at = now() - interval '1 year'")
        assert await watcher.workers.absent(watcher.worker_id, grace_s=86_400) == set(), (
            "the server was restarted since"
        )
        assert await watcher.workers.absent(watcher.worker_id, grace_s=0) == {(dead, 102)}
        assert await watcher.workers.rescue([(living, 101), (dead, 7)]) == [], "alive, and back with another lock"


async def test_others_messages_are_held_and_ones_own_are_not(database: str, watcher: Clock) -> None:
    async with connected(database) as db:
        other = await join(db, "other", 101, alive=True)

        async def held(worker_id: int) -> bool:
            return (await watcher.store.outlook(worker_id)).held

        assert not await held(watcher.worker_id)
        await watcher.enqueue("a")
        assert await held(watcher.worker_id), "there is enough for all: perhaps"
        [message] = await watcher.claim()
        assert not await held(watcher.worker_id)
        await watcher.store.complete([(message, Delivered("w", "r"))])
        watcher.pass_s(3600)  # what the producers' clock stamps is due by the test's
        for gate in ("null", "'t'"):
            await db.execute(f"select outbox.enqueue('b', '{{}}', tenant => {gate})")
            watcher.worker_id, mine = other, watcher.worker_id
            [message] = await watcher.claim(lease_s=30)
            watcher.worker_id = mine
            assert await held(mine)
            assert not await held(other)
            watcher.pass_s(31)
            assert (await watcher.store.outlook(mine)).due or (await watcher.store.outlook(mine)).restricted
            await watcher.store.complete([(message, Delivered("w", "r"))])
            assert not await held(mine)


async def test_rescued_message_is_settled_by_the_first_worker(database: str, watcher: Clock) -> None:
    """A live worker that was taken for dead may settle until another one claims, and not after."""
    async with connected(database) as db:
        dead = await join(db, "dead", 101, alive=False)
        await watcher.enqueue("a", "b")
        watcher.worker_id, mine = dead, watcher.worker_id
        early, late = await watcher.claim()
        watcher.worker_id = mine
        assert await watcher.workers.rescue([(dead, 101)], watcher.now) == [("dead", 2)]
        assert await watcher.workers.rescue([(dead, 101)], watcher.now) == [], "once"
        assert await watcher.store.complete([(early, Delivered("w", "r"))]) == set()
        [again] = await watcher.claim()
        assert (again.message_id, again.deliveries) == (late.message_id, 2)
        assert await watcher.store.complete([(late, Delivered("w", "r"))]) == {late.lease}
        assert await watcher.store.complete([(again, Delivered("w", "r"))]) == set()
    assert (await counts(database))["history"] == 2


async def test_one_absence_proves_nothing(database: str, watcher: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as db:
        dead = await join(db, "dead", 101, alive=False)
        watcher.store.now = None
        assert await db.execute("select outbox.enqueue('t', '{}')")
        [message] = (await watcher.store.claim(1, lease_s=60, worker_id=dead)).messages
        log = EventLog()
        stable_s, now_s = 3600.0, 1000.0
        monkeypatch.setattr("outbox.worker.rescue.monotonic", lambda: now_s)
        rescue = Rescue(watcher.workers, Wakeup(log), log, worker_id=watcher.worker_id, stable_s=lambda: stable_s)
        for _ in range(3):
            await rescue._check()
        assert await leased(database) == 1, "absent, but not for long enough"
        await db.execute("select pg_advisory_lock(102)")
        await db.execute("update outbox.worker set presence = 102 where worker_id = $1", dead)
        now_s += 1.1
        await rescue._check()
        await db.execute("select pg_advisory_unlock(102)")
        await rescue._check()
        assert await leased(database) == 1, "it had been back"
        now_s += 1.1
        stable_s = 5.0
        await rescue._check()
        assert await leased(database) == 1, "the same fault may have hit the others"
        stable_s = 3600.0
        await rescue._check()
        assert await leased(database) == 0
        assert log.of(Rescued) == [Rescued("dead", 1)]
        assert message.deliveries == 1


async def test_two_that_rescue_at_once_rescue_once(database: str, watcher: Clock) -> None:
    async with connected(database) as db:
        dead = await join(db, "dead", 101, alive=False)
        await watcher.enqueue(*"abc")
        watcher.worker_id = dead
        assert len(await watcher.claim()) == 3
        found: list[tuple[str, int]] = []

        async def rescue() -> None:
            found.extend(await watcher.workers.rescue([(dead, 101)], watcher.now))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(rescue)
        assert found == [("dead", 3)]
