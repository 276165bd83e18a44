"""A link to Temporal that goes silent without an error, while new connections work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic
from uuid import uuid4

import pytest
from temporalio.service import KeepAliveConfig

from outbox.model.events import Held
from outbox.model.sink import Delivered, Outcome, SinkContext, Unavailable, Unknown
from outbox_temporal.sink import frontend, temporal_sink
from tests.support.eventually import eventually
from tests.support.running import fetch, running
from tests.support.shared import SharedServer
from tests.support.tcp_proxy import TcpProxy, tcp_proxy
from tests.temporal.conftest import message, start

pytestmark = pytest.mark.timeout(90)
START = "select outbox.start_workflow('Probe', $1, task_queue => 'unserved')"


@pytest.fixture
async def link(temporal_server: SharedServer, environment: pytest.MonkeyPatch) -> AsyncIterator[TcpProxy]:
    """What lies between a worker and the server; the environment leads through it."""
    async with tcp_proxy(f"grpc://{temporal_server.address}") as proxy:
        environment.setenv("TEMPORAL_ADDRESS", f"{proxy.host}:{proxy.port}")
        yield proxy


async def test_worker_recovers_from_a_half_open_link_within_ten_seconds(link: TcpProxy, database: str) -> None:
    async with running(
        database, factory=temporal_sink, deliver_timeout_s=10.0, retry_base_s=1.0, retry_cap_s=300.0
    ) as relay:
        await fetch(database, START, f"before-{uuid4()}")
        await relay.wait_completed(1)
        link.half_open()
        began_s = monotonic()
        for _ in range(20):
            await fetch(database, START, f"after-{uuid4()}")
        await relay.wait_completed(21, timeout_s=30)
        assert monotonic() - began_s < 10
        assert not relay.log.of(Held)


async def test_a_silent_link_is_replaced_once_and_the_message_delivered_on_the_next_try(link: TcpProxy) -> None:
    async with temporal_sink(SinkContext(identity="test", deliver_timeout_s=2.0)) as sink:
        assert await sink.probe() is None
        link.half_open()
        sent = message(start(f"wf-{uuid4()}"))
        assert isinstance(await sink.deliver(sent), Unknown)
        assert isinstance(await sink.deliver(sent), Delivered)
        assert link.accepted == 2


async def test_a_probe_over_a_silent_link_connects_again(link: TcpProxy) -> None:
    async with temporal_sink(SinkContext(identity="test", deliver_timeout_s=2.0)) as sink:
        assert await sink.probe() is None
        link.half_open()
        assert isinstance(await sink.probe(), Unavailable)
        assert await sink.probe() is None


async def test_keep_alive_ends_a_half_open_connection_before_a_long_call_times_out(
    link: TcpProxy, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(frontend, "KEEP_ALIVE", KeepAliveConfig(interval_millis=500, timeout_millis=500))
    async with temporal_sink(SinkContext(identity="test", deliver_timeout_s=120.0)) as sink:
        assert await sink.probe() is None
        link.half_open()
        began_s, sent = monotonic(), message(start(f"wf-{uuid4()}"))

        async def deliver() -> Outcome:
            return await sink.deliver(sent)

        await eventually(deliver, lambda outcome: isinstance(outcome, Delivered))
        assert monotonic() - began_s < 10


def test_keep_alive_pings_no_more_often_than_temporal_allows() -> None:
    assert frontend.KEEP_ALIVE.interval_millis > 10_000
