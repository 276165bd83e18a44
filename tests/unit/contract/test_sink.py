"""What every sink keeps, the real one and those that stand in for it in other tests.

`stub` is the real sink on the benchmarks' stand-in for Temporal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import anyio
import pytest
from temporalio.client import Client

from outbox.model.message import Message
from outbox.model.sink import Delivered, Forgetful, Outcome, Sink, SinkContext, Unavailable, Unknown
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.postgres import running
from outbox_temporal.sink import temporal_sink
from tests.support.sinks import FakeSink, null_sink

pytestmark = pytest.mark.timeout(150)
TIMEOUT_S = 30.0
CONTEXT = SinkContext("contract", TIMEOUT_S)
NO_SERVER = "127.0.0.1:1"
Opened = Callable[..., AbstractAsyncContextManager[Sink]]


def start(workflow_id: str | None = None) -> Message:
    """A message that every sink can deliver."""
    target = (
        f'{{"operation": "start_workflow", "workflow": "Probe", "workflow_id": "{workflow_id or uuid4().hex}", '
        '"arguments": "one", "task_queue": "unserved"}'
    )
    return Message(uuid4(), 1, "contract", None, '{"n": 1}', "{}", target, 1, 0, 0, 0.0, 1)


@pytest.fixture(params=["fake", "null", "temporal", "stub"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Opens the sink, with its other side there or away."""

    @asynccontextmanager
    async def fake(*, available: bool = True) -> AsyncIterator[Sink]:
        sink = FakeSink()
        sink.available = available
        async with sink.factory(CONTEXT) as entered:
            yield entered

    @asynccontextmanager
    async def null() -> AsyncIterator[Sink]:
        async with null_sink(CONTEXT) as entered:
            yield entered

    @asynccontextmanager
    async def temporal(*, available: bool = True) -> AsyncIterator[Sink]:
        client: Client = request.getfixturevalue("temporal_client")
        monkeypatch.setenv("TEMPORAL_ADDRESS", client.service_client.config.target_host if available else NO_SERVER)
        async with temporal_sink(CONTEXT) as entered:
            yield entered

    @asynccontextmanager
    async def stub(*, available: bool = True) -> AsyncIterator[Sink]:
        async with running(StubFrontend.start) as server:
            monkeypatch.setenv("TEMPORAL_ADDRESS", server.address if available else NO_SERVER)
            async with temporal_sink(CONTEXT) as entered:
                yield entered

    return {"fake": fake, "null": null, "temporal": temporal, "stub": stub}[request.param]


async def test_message_is_delivered_in_time(opened: Opened, temporal_client: Client) -> None:
    async with opened() as sink:
        with anyio.fail_after(TIMEOUT_S):
            assert isinstance(await sink.deliver(start()), Delivered)


async def test_delivering_again_is_no_duplicate(opened: Opened, temporal_client: Client) -> None:
    message = start()
    async with opened() as sink:
        answers = [await sink.deliver(message) for _ in range(3)]
    assert all(isinstance(answer, Delivered) and not answer.duplicate for answer in answers)


async def test_many_at_once_are_all_answered(opened: Opened, temporal_client: Client) -> None:
    answers: list[Outcome] = []

    async def deliver(sink: Sink) -> None:
        message = start()
        answer: Outcome = Unknown("", "")
        while isinstance(answer, Unknown):  # a server that is too slow for all at once has them delivered again
            answer = await sink.deliver(message)
        answers.append(answer)

    async with opened() as sink, anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(deliver, sink)
    assert [type(answer) for answer in answers] == [Delivered] * 30


async def test_probe_of_a_sink_that_can_take_messages_is_none(opened: Opened, temporal_client: Client) -> None:
    async with opened() as sink:
        assert await sink.probe() is None


@pytest.mark.parametrize("opened", ["fake", "temporal", "stub"], indirect=True)  # nothing is behind the null sink
async def test_sink_says_that_its_other_side_is_away_and_raises_nothing(
    opened: Opened, temporal_client: Client
) -> None:
    async with opened(available=False) as sink:
        with anyio.fail_after(2 * TIMEOUT_S):
            assert isinstance(await sink.deliver(start()), Unavailable)
            assert isinstance(await sink.probe(), Unavailable)


async def test_sink_reports_its_retention_and_raises_nothing_if_its_other_side_is_away(
    opened: Opened, temporal_client: Client, request: pytest.FixtureRequest
) -> None:
    async with opened() as sink:
        if not isinstance(sink, Forgetful):
            assert request.node.callspec.params["opened"] not in ("temporal", "stub")
            return
        with anyio.fail_after(TIMEOUT_S):
            memory_s = await sink.memory_s(None)
        assert isinstance(memory_s, float)
        assert memory_s > 0
    async with opened(available=False) as sink:
        assert isinstance(sink, Forgetful)
        with anyio.fail_after(2 * TIMEOUT_S):
            assert isinstance(await sink.memory_s(None), Unavailable)
