"""Realtime under every fault: noticed, healed by itself, nothing lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import pytest

from outbox.model.events import ModeChanged, SourceDegraded, SourceLost, SourceReady, SourceRestored
from tests.support.eventually import eventually
from tests.support.realtime_server import RealtimeServer, jwt
from tests.support.running import Running, enqueue, fetch, running
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(120)

POLLING_S = 0.3
BUSY_MACHINE_S = 3.0
GRACE_S = 3.2
"""Realtime's time after its last hint, and a little: what the verdict on its silence depends on."""
SERVICE = jwt("service_role")


@asynccontextmanager
async def woken_by(
    server: RealtimeServer, dsn: str, *, url: str | None = None, **chosen: Any
) -> AsyncIterator[Running]:
    """A worker that is woken by Realtime and, while that is silent, polls every 300 ms."""
    environment = {"SUPABASE_URL": url or server.url, "SUPABASE_SERVICE_ROLE_KEY": SERVICE}
    defaults = {"mode": "realtime", "poll_interval_s": 3600.0, "fallback_interval_s": POLLING_S}
    async with running(dsn, **defaults | environment | chosen) as relay:
        yield relay


async def delivered(relay: Running, dsn: str, *, timeout_s: float = 40.0) -> float:
    """Commit one message and return after how many seconds it was delivered."""
    before = len(relay.completed)
    began_s = monotonic()
    await enqueue(dsn)
    await relay.wait_completed(before + 1, timeout_s=timeout_s)
    return monotonic() - began_s


async def ready(relay: Running, *, after: int = 0) -> None:
    await relay.log.wait_for(SourceReady, after=after, timeout_s=45)


def joined(server: RealtimeServer) -> Callable[[], Awaitable[bool]]:
    """Whether a client has joined a channel; its subscription may still be missing."""

    async def look() -> bool:
        return any(client.channels for client in server.clients)

    return look


def has_read(server: RealtimeServer, message_id: UUID) -> Callable[[], Awaitable[bool]]:
    """Whether the server has read this message's row, and passed it on to the clients that may see it."""

    async def look() -> bool:
        return str(message_id) in server.read

    return look


@pytest.mark.parametrize("via", ["postgres_changes", "broadcast"])
async def test_commit_wakes_an_idle_worker(server: RealtimeServer, supabase: str, via: str) -> None:
    if via == "broadcast":
        await fetch(supabase, "select outbox.enable_broadcast()")
        await fetch(supabase, "alter publication supabase_realtime drop table outbox.message")
    async with woken_by(server, supabase, realtime_via=via) as relay:
        await ready(relay)
        for _ in range(3):
            await delivered(relay, supabase)


async def test_broadcast_that_fails_never_fails_the_producer(supabase: str) -> None:
    await fetch(supabase, "select outbox.enable_broadcast()")
    await fetch(
        supabase,
        "create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true) "
        "returns void "
        "language plpgsql as 'begin raise exception ''no partition''; end'",
    )
    await enqueue(supabase)
    [row] = await fetch(supabase, "select count(*) from outbox.message")
    assert row[0] == 1


async def test_join_alone_is_not_taken_for_a_subscription(server: RealtimeServer, supabase: str) -> None:
    server.subscribe_delay_s = 1.0
    async with woken_by(server, supabase) as relay:
        await eventually(joined(server), bool)
        assert not relay.log.of(SourceReady), "joined, and not subscribed"
        await ready(relay)


async def test_broadcasts_join_alone_is_not_taken_for_a_replication(server: RealtimeServer, supabase: str) -> None:
    await fetch(supabase, "select outbox.enable_broadcast()")
    server.subscribe_delay_s = 1.0
    async with woken_by(server, supabase, realtime_via="broadcast") as relay:
        await eventually(joined(server), bool)
        assert not relay.log.of(SourceReady), "joined, and nothing is replicated"
        await ready(relay)
        await delivered(relay, supabase)


@pytest.mark.parametrize("role", ["service_role", "authenticated"])
async def test_private_only_project_wakes_by_changes_on_a_private_channel(
    server: RealtimeServer, supabase: str, role: str
) -> None:
    server.private_only = True
    await fetch(supabase, "alter table realtime.messages enable row level security")
    key = jwt(role)
    async with woken_by(server, supabase, SUPABASE_SERVICE_ROLE_KEY=key) as relay:
        lost = await relay.log.wait_for(SourceLost)
        assert lost.error.endswith("only allows private channels. Set OUTBOX_REALTIME_PRIVATE=true")
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S
    await fetch(supabase, "grant select on outbox.message to authenticated")
    async with woken_by(server, supabase, SUPABASE_SERVICE_ROLE_KEY=key, realtime_private=True) as relay:
        if role == "authenticated":
            assert "Unauthorized" in (await relay.log.wait_for(SourceLost)).error
            await fetch(
                supabase,
                "create policy outbox_wakeup on realtime.messages for select to authenticated "
                "using (realtime.topic() = 'outbox')",
            )
        await ready(relay)
        await delivered(relay, supabase)


async def test_what_came_before_the_subscription_is_looked_for(server: RealtimeServer, supabase: str) -> None:
    server.subscribe_delay_s = 1.0
    async with woken_by(server, supabase, fallback_interval_s=3600.0) as relay:
        await eventually(joined(server), bool)
        await enqueue(supabase)
        await relay.wait_completed(1)


async def test_renewed_subscription_has_the_relay_look(server: RealtimeServer, supabase: str) -> None:
    async with woken_by(server, supabase, fallback_interval_s=3600.0) as relay:  # no poll finds anything
        await ready(relay)
        server.deaf = True
        for sent in count(1):  # the look that follows a subscription may still be on its way
            await enqueue(supabase)
            await anyio.sleep(0.3)  # the time that such a look takes; no event says that there is none
            if len(relay.completed) < sent:
                break
        await server.subscribe_again()
        await relay.wait_completed(sent)


Fault = Callable[[RealtimeServer], Awaitable[None]]


async def dropped(server: RealtimeServer) -> None:
    await server.drop()


async def closed(server: RealtimeServer) -> None:
    await server.end_channels()


async def errored(server: RealtimeServer) -> None:
    await server.end_channels("phx_error")


async def rate_limited(server: RealtimeServer) -> None:
    await server.end_channels(reason="Too many messages per second")


async def unsubscribed(server: RealtimeServer) -> None:
    await server.fail_subscriptions()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (dropped, "socket was closed"),
        (closed, "phx_close"),
        (errored, "phx_error"),
        (unsubscribed, "Unable to subscribe"),
    ],
)
async def test_fault_of_the_channel_is_noticed_at_once_and_heals(
    server: RealtimeServer, supabase: str, fault: Fault, reason: str
) -> None:
    async with woken_by(server, supabase) as relay:
        await ready(relay)
        await delivered(relay, supabase)
        mark = len(relay.log)
        began_s = monotonic()
        await fault(server)
        lost = await relay.log.wait_for(SourceLost, after=mark)
        assert monotonic() - began_s < 1.0 + BUSY_MACHINE_S
        assert reason in lost.error
        await ready(relay, after=mark)
        await delivered(relay, supabase)


async def test_rate_limit_is_answered_with_patience(server: RealtimeServer, supabase: str) -> None:
    async with woken_by(server, supabase) as relay:
        await ready(relay)
        await rate_limited(server)
        lost = await relay.log.wait_for(SourceLost)
        assert "Too many messages" in lost.error
        assert lost.retry_in_s >= 5.0
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S


@pytest.mark.parametrize(
    "reason", ["ConnectionRateLimitReached: too many", "RealtimeRestarting: wait", "InvalidJWTToken: no"]
)
async def test_refused_join_is_reported_with_its_reason_and_tried_again(
    server: RealtimeServer, supabase: str, reason: str
) -> None:
    server.refuse_join = reason
    async with woken_by(server, supabase) as relay:
        lost = await relay.log.wait_for(SourceLost)
        assert lost.error == f"join refused: {reason}"
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S
        server.refuse_join = None
        await ready(relay)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_refused_handshake_is_reported_with_its_status(
    server: RealtimeServer, supabase: str, status: int
) -> None:
    server.refuse_handshake = status
    async with woken_by(server, supabase) as relay:
        lost = await relay.log.wait_for(SourceLost)
        assert f"HTTP {status}" in lost.error
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S


async def test_wrong_key_is_reported(server: RealtimeServer, supabase: str) -> None:
    wrong = jwt("service_role", secret="another")
    async with woken_by(server, supabase, SUPABASE_SERVICE_ROLE_KEY=wrong) as relay:
        assert "HTTP 403" in (await relay.log.wait_for(SourceLost)).error


async def test_server_that_restarts_is_found_again(server: RealtimeServer, supabase: str) -> None:
    async with woken_by(server, supabase) as relay:
        await ready(relay)
        mark = len(relay.log)
        await server.stop()
        await relay.log.wait_for(SourceLost, after=mark)
        await relay.log.wait_for(SourceLost, lambda event: "cannot reach" in event.error, after=mark)
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S
        await server.start()
        await ready(relay, after=mark)
        await delivered(relay, supabase)


async def test_half_open_socket_is_noticed_within_five_seconds(server: RealtimeServer, supabase: str) -> None:
    async with tcp_proxy(server.url) as proxy, woken_by(server, supabase, url=proxy.url(server.url)) as relay:
        await ready(relay)
        mark = len(relay.log)
        proxy.stall()
        began_s = monotonic()
        await relay.log.wait_for(SourceLost, after=mark)
        assert monotonic() - began_s < 5.0 + BUSY_MACHINE_S
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S
        proxy.cut()
        proxy.flow()
        await ready(relay, after=mark)
        await delivered(relay, supabase)


async def test_hanging_process_is_noticed_by_its_unanswered_heartbeat(server: RealtimeServer, supabase: str) -> None:
    """The websocket is answered by the server's transport; the application behind it stands still."""
    async with woken_by(server, supabase) as relay:
        await ready(relay)
        server.answer_heartbeats = False
        lost = await relay.log.wait_for(SourceLost, timeout_s=30)
        assert "heartbeat" in lost.error
        server.answer_heartbeats = True
        await ready(relay, after=len(relay.log))


async def test_connected_but_deaf_is_found_by_what_polls_find(server: RealtimeServer, supabase: str) -> None:
    async with woken_by(server, supabase, poll_interval_s=0.5) as relay:
        await ready(relay)
        server.deaf = True
        await anyio.sleep(GRACE_S)
        await enqueue(supabase)
        await relay.log.wait_for(SourceDegraded)
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S
        server.deaf = False
        while not relay.log.of(SourceRestored):
            await delivered(relay, supabase)
            await anyio.sleep(0.2)  # the pace of the load


async def test_row_level_security_mutes_and_is_found_and_a_policy_repairs_it(
    server: RealtimeServer, supabase: str
) -> None:
    await fetch(supabase, "alter table outbox.message enable row level security")
    await fetch(supabase, "grant select on outbox.message to authenticated")
    async with woken_by(server, supabase, poll_interval_s=0.5, SUPABASE_SERVICE_ROLE_KEY=jwt("authenticated")) as relay:
        await ready(relay)
        await anyio.sleep(GRACE_S)
        await enqueue(supabase)
        await relay.log.wait_for(SourceDegraded)
        await fetch(supabase, "create policy wakeup on outbox.message for select to authenticated using (true)")
        sink = relay.sink
        while not relay.log.of(SourceRestored):
            sink.block()  # a row that is settled before Realtime reads it is no longer there to be seen
            before = len(sink.received)
            [message_id] = await enqueue(supabase)
            await sink.wait_received(before + 1)
            await eventually(has_read(server, message_id), bool)
            sink.unblock()


async def test_expired_token_ends_the_channel_and_a_fresh_one_from_the_file_begins_another(
    server: RealtimeServer, supabase: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(jwt("service_role", expires_in_s=8.0))
    async with woken_by(server, supabase, realtime_token_file=str(file)) as relay:
        await ready(relay)
        lost = await relay.log.wait_for(SourceLost, timeout_s=40)
        assert "expired" in lost.error
        file.write_text(jwt("service_role"))
        await ready(relay, after=len(relay.log))
        await delivered(relay, supabase)


async def test_token_that_is_refreshed_in_time_keeps_the_channel(
    server: RealtimeServer, supabase: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(jwt("service_role", expires_in_s=16.0))
    async with woken_by(server, supabase, realtime_token_command=f"cat {file}") as relay:
        await ready(relay)
        file.write_text(jwt("service_role"))
        [client] = server.clients
        [channel] = client.channels.values()
        before = channel.expires

        async def expires() -> float:
            return channel.expires

        await eventually(expires, lambda at: at != before, timeout_s=40)
        await delivered(relay, supabase)
    assert not relay.log.of(SourceLost)


async def test_token_that_cannot_be_had_is_named(server: RealtimeServer, supabase: str, tmp_path: Path) -> None:
    async with woken_by(server, supabase, realtime_token_file=str(tmp_path / "none")) as relay:
        lost = await relay.log.wait_for(SourceLost)
        assert "OUTBOX_REALTIME_TOKEN_FILE" in lost.error
        assert await delivered(relay, supabase) < POLLING_S + 0.1 + BUSY_MACHINE_S


async def test_address_that_is_no_realtime_server_is_named(supabase: str) -> None:
    url = "http://127.0.0.1:1"
    environment = {"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": SERVICE}
    async with running(supabase, mode="realtime", **environment) as relay:
        lost = await relay.log.wait_for(SourceLost)
        assert "127.0.0.1:1" in lost.error


async def test_auto_falls_back_to_realtime_if_listen_receives_nothing(server: RealtimeServer, supabase: str) -> None:
    async with tcp_proxy(supabase) as proxy:
        await proxy.refuse()
        async with woken_by(server, supabase, mode="auto", listen_url=proxy.url(supabase)) as relay:
            await relay.log.wait_for(ModeChanged, lambda event: event.sources == ("listen", "realtime"))
            await relay.log.wait_for(SourceReady, lambda event: event.source == "realtime")
            await delivered(relay, supabase)
            await proxy.accept()
            await relay.log.wait_for(SourceReady, lambda event: event.source == "listen", timeout_s=30)
            await relay.log.wait_for(
                ModeChanged, lambda event: event.sources == ("listen",), after=len(relay.log), timeout_s=30
            )
            await delivered(relay, supabase)
