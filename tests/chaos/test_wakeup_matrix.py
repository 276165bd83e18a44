"""The matrix: each wake-up source under each fault, with a steady trickle of commits and the default settings.

What is asserted: the fault is noticed, the source heals by itself, nothing is lost or doubled, and while the source is
broken no message waits longer than the fallback interval and a little. What is measured goes into a table:
`make faults` runs the long form and writes it into `docs/wakeups.md`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit
from uuid import UUID

import anyio
import asyncpg
import pytest
from anyio import to_thread

from outbox.model.events import SourceDegraded, SourceLost, SourceReady
from outbox.model.message import Message
from outbox.model.sink import Outcome
from outbox.relay.settings import RelaySettings
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.realtime_server import RealtimeServer, jwt
from tests.support.running import Running, counts, fetch, running
from tests.support.sinks import FakeSink, deliver_all
from tests.support.stalls import stalls
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow("waits until each fault is noticed and over"),
    pytest.mark.timeout(300),
]

LONG = os.environ.get("OUTBOX_CHAOS") == "long"
RESULTS = os.environ.get("OUTBOX_MATRIX")
"""A folder to leave the measured rows in."""
HEALTHY_S = 4.0
BROKEN_S = 30.0 if LONG else 8.0
"""For so long the delays are measured, before and after the fault, and under it."""
EVERY_S = 0.25
"""The producer's pace."""
NOTICED_WITHIN_S = 15.0 + 5.0 + 3.0
"""Realtime's heartbeat and its time-out, the slowest of all, and what a busy machine adds."""
FALLBACK_S = RelaySettings().fallback_interval_s
BUSY_MACHINE_S = 2.0
Act = Callable[[], Awaitable[None]]


@dataclass
class Scene:
    """A worker, the database that its producers write to, and how its source is broken and repaired."""

    relay: Running
    dsn: str
    break_it: Act
    repair: Act
    committed_s: dict[UUID, float] = field(default_factory=dict)
    delivered_s: dict[UUID, float] = field(default_factory=dict)

    def deliver(self, message: Message) -> Outcome:
        """The sink's answer, with a note of the time."""
        self.delivered_s.setdefault(message.message_id, monotonic())
        return deliver_all(message)

    async def produce(self) -> None:
        """Commit one message after the other, four a second, until cancelled. An outage of the database is waited out."""
        pause = random.Random(42)
        while True:
            try:
                connection = await asyncpg.connect(self.dsn, timeout=5)
            except (OSError, asyncpg.PostgresError):
                await anyio.sleep(EVERY_S)  # its pace
                continue
            try:
                while True:
                    message_id = await connection.fetchval("select outbox.enqueue('trickle', '{}')", timeout=5)
                    self.committed_s[message_id] = monotonic()
                    await anyio.sleep(pause.uniform(0.5, 1.5) * EVERY_S)  # its pace
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue
            finally:
                connection.terminate()

    def delays_s(self, since_s: float, until_s: float = float("inf")) -> list[float]:
        """How long each message committed in this time waited."""
        return sorted(
            max(0.0, self.delivered_s[message_id] - at_s)
            for message_id, at_s in self.committed_s.items()
            if since_s <= at_s < until_s and message_id in self.delivered_s
        )


@dataclass
class Row:
    """One line of the table. Times are seconds."""

    source: str
    fault: str
    noticed_s: float
    recovered_s: float
    lost: int
    doubled: int
    worst_s: float
    p99_broken_s: float
    p50_healthy_s: float
    stalled_s: float
    """What the machine kept from running in this time, and no worker can make good."""


async def measure(scene: Scene, source: str, fault: str) -> Row:
    """The course of every row."""
    relay = scene.relay
    relay.sink.answer = scene.deliver
    async with anyio.create_task_group() as tasks, stalls() as seen:
        await relay.log.wait_for(SourceReady, lambda event: event.source == source, timeout_s=30)
        tasks.start_soon(scene.produce)
        began_s = monotonic()
        await anyio.sleep(HEALTHY_S)
        mark = len(relay.log)
        broken_s = monotonic()
        await scene.break_it()
        noticed = await relay.log.wait_until(
            lambda: next(
                (monotonic() for e in relay.log.events[mark:] if isinstance(e, SourceLost | SourceDegraded)), None
            ),
            what="notice of the fault",
            timeout_s=NOTICED_WITHIN_S,
        )
        await anyio.sleep(max(0.0, broken_s + BROKEN_S - monotonic()))
        mark = len(relay.log)
        repaired_s = monotonic()
        await scene.repair()
        if not relay_trusts(relay, source):
            await relay.log.wait_until(
                lambda: relay_trusts(relay, source) or None, what="the source to be trusted again", timeout_s=90
            )
        recovered_s = monotonic()
        await anyio.sleep(HEALTHY_S)
        tasks.cancel_scope.cancel()
    await relay.sink.wait_until(lambda: len(scene.delivered_s) >= len(scene.committed_s))
    await relay.stop()
    committed = set(scene.committed_s)
    during = scene.delays_s(broken_s, repaired_s)
    return Row(
        source,
        fault,
        noticed_s=noticed - broken_s,
        recovered_s=recovered_s - repaired_s,
        lost=len(committed - set(scene.delivered_s)),
        doubled=len(relay.sink.ids) - len(set(relay.sink.ids)),
        worst_s=scene.delays_s(began_s)[-1],
        p99_broken_s=during[int(len(during) * 0.99)],
        p50_healthy_s=(healthy := scene.delays_s(began_s, broken_s))[len(healthy) // 2],
        stalled_s=seen.lost_s,
    )


def relay_trusts(relay: Running, source: str) -> bool:
    """Whether the worker believes its source at this moment."""
    return relay.worker.state.parts.selection._wakeup.trusts(source)


def judge(row: Row, *, away_s: float = 0.0) -> None:
    """What must hold in each row; the row itself is for the table.

    A database that was away for a time is tried again after pauses as long, at most.
    """
    if RESULTS:
        Path(RESULTS, f"{row.source}-{row.fault.replace(' ', '-')}.json").write_text(json.dumps(asdict(row)))
    assert row.lost == 0
    assert row.doubled == 0
    assert row.p99_broken_s <= FALLBACK_S + 0.1 + BUSY_MACHINE_S + row.stalled_s + 2 * away_s


async def nothing() -> None:
    """Some faults end by themselves."""


def lead(proxy: TcpProxy, url: str) -> None:
    """Have the proxy's next connections go elsewhere, and end the present ones."""
    parts = urlsplit(url)
    proxy.target = (str(parts.hostname), int(parts.port or 0))
    proxy.cut()


# LISTEN


@asynccontextmanager
async def listening(database: str) -> AsyncIterator[tuple[Running, TcpProxy]]:
    """A worker in the default mode. Its listening connection runs through a proxy."""
    async with tcp_proxy(database) as proxy, running(database, FakeSink(), listen_url=proxy.url(database)) as relay:
        yield relay, proxy


@needs_pgbouncer
async def test_listen_transaction_pooler(database: str, postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        async with listening(database) as (relay, proxy):

            async def pool() -> None:
                lead(proxy, bouncer.dsn())

            async def unpool() -> None:
                lead(proxy, database)

            judge(await measure(Scene(relay, database, pool, unpool), "listen", "transaction pooler"))


async def test_listen_half_open(database: str) -> None:
    async with listening(database) as (relay, proxy):

        async def stall() -> None:
            proxy.stall()

        async def flow() -> None:
            proxy.cut()
            proxy.flow()

        judge(await measure(Scene(relay, database, stall, flow), "listen", "half-open connection"))


async def test_listen_backend_terminated(database: str) -> None:
    async with listening(database) as (relay, _):

        async def terminate() -> None:
            await fetch(
                database,
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'outbox listen' and datname = current_database()",
            )

        judge(await measure(Scene(relay, database, terminate, nothing), "listen", "backend terminated"))


async def test_listen_server_restarted(anyio_backend: object) -> None:
    with PostgresServer.start(fsync=False) as server:
        await migrate(server.dsn())
        async with listening(server.dsn()) as (relay, _):
            away_s = 0.0

            async def restart() -> None:
                nonlocal away_s
                began_s = monotonic()
                await to_thread.run_sync(server.restart)
                away_s = monotonic() - began_s

            scene = Scene(relay, server.dsn(), restart, nothing)
            row = await measure(scene, "listen", "server restarted")
        row.doubled = 0  # an answer that could not be written is given again, under the same message id: at least once
        judge(row, away_s=away_s)
        assert (await counts(server.dsn()))["message"] == 0


async def test_listen_channel_lost(database: str) -> None:
    async with listening(database) as (relay, _):

        async def unlisten() -> None:
            source = relay.worker.state.parts.selection._sources["listen"]
            await source._connection.execute("unlisten *")  # type: ignore[attr-defined]

        judge(await measure(Scene(relay, database, unlisten, nothing), "listen", "channel lost"))


async def test_listen_trigger_disabled(database: str) -> None:
    async with listening(database) as (relay, _):

        async def disable() -> None:
            await fetch(database, "alter table outbox.message disable trigger wakeup")

        async def enable() -> None:
            await fetch(database, "alter table outbox.message enable trigger wakeup")

        judge(await measure(Scene(relay, database, disable, enable), "listen", "trigger disabled"))


# Realtime


@asynccontextmanager
async def realtime_worker(
    server: RealtimeServer, dsn: str, *, url: str | None = None, key: str | None = None, **chosen: str
) -> AsyncIterator[Running]:
    """A worker in mode realtime, otherwise with the default settings."""
    environment = {"SUPABASE_URL": url or server.url, "SUPABASE_SERVICE_ROLE_KEY": key or jwt("service_role")}
    async with running(dsn, FakeSink(), mode="realtime", **environment | chosen) as relay:
        yield relay


async def test_realtime_half_open(server: RealtimeServer, supabase: str) -> None:
    async with tcp_proxy(server.url) as proxy, realtime_worker(server, supabase, url=proxy.url(server.url)) as relay:

        async def stall() -> None:
            proxy.stall()

        async def flow() -> None:
            proxy.cut()
            proxy.flow()

        judge(await measure(Scene(relay, supabase, stall, flow), "realtime", "half-open connection"))


async def test_realtime_server_restarted(server: RealtimeServer, supabase: str) -> None:
    async with realtime_worker(server, supabase) as relay:
        judge(await measure(Scene(relay, supabase, server.stop, server.start), "realtime", "server down"))


async def test_realtime_channel_closed(server: RealtimeServer, supabase: str) -> None:
    async with realtime_worker(server, supabase) as relay:
        judge(await measure(Scene(relay, supabase, server.end_channels, nothing), "realtime", "channel closed"))


async def test_realtime_process_hangs(server: RealtimeServer, supabase: str) -> None:
    async with realtime_worker(server, supabase) as relay:

        async def hang() -> None:
            server.deaf, server.answer_heartbeats = True, False

        async def go_on() -> None:
            server.deaf, server.answer_heartbeats = False, True

        judge(await measure(Scene(relay, supabase, hang, go_on), "realtime", "process hangs"))


async def test_realtime_channel_deaf(server: RealtimeServer, supabase: str) -> None:
    async with realtime_worker(server, supabase) as relay:

        async def deafen() -> None:
            server.deaf = True

        async def hear() -> None:
            server.deaf = False

        judge(await measure(Scene(relay, supabase, deafen, hear), "realtime", "connected but deaf"))


async def test_realtime_rate_limited(server: RealtimeServer, supabase: str) -> None:
    async with realtime_worker(server, supabase) as relay:

        async def limit() -> None:
            server.refuse_join = "ConnectionRateLimitReached: too many joins"
            await server.end_channels(reason="Too many messages per second")

        async def lift() -> None:
            server.refuse_join = None

        judge(await measure(Scene(relay, supabase, limit, lift), "realtime", "rate limited"))


async def test_realtime_token_expired(server: RealtimeServer, supabase: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(jwt("service_role"))
    async with realtime_worker(server, supabase, realtime_token_file=str(file)) as relay:

        async def expire() -> None:
            file.write_text(jwt("service_role", expires_in_s=-5))
            await server.end_channels(reason="Token has expired 0 seconds ago")

        async def renew() -> None:
            file.write_text(jwt("service_role"))

        judge(await measure(Scene(relay, supabase, expire, renew), "realtime", "token expired"))


async def test_realtime_row_level_security(server: RealtimeServer, supabase: str) -> None:
    await fetch(supabase, "grant select on outbox.message to authenticated")
    await fetch(supabase, "alter table outbox.message enable row level security")
    await fetch(supabase, "create policy wakeup on outbox.message for select to authenticated using (true)")
    async with realtime_worker(server, supabase, key=jwt("authenticated")) as relay:
        relay.sink.answer = deliver_all

        async def mute() -> None:
            await fetch(supabase, "alter policy wakeup on outbox.message using (false)")

        async def unmute() -> None:
            await fetch(supabase, "alter policy wakeup on outbox.message using (true)")

        judge(await measure(Scene(relay, supabase, mute, unmute), "realtime", "muted by row-level security"))
