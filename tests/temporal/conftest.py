"""A sink on the shared dev server, and messages to give it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from outbox.model.message import Message
from outbox.model.sink import Sink, SinkContext
from outbox_temporal.sink import temporal_sink
from tests.support.shared import SharedServer

CONTEXT = SinkContext(identity="test-worker", deliver_timeout_s=10.0)
OpenSink = Callable[..., AbstractAsyncContextManager[Sink]]


def message(
    target: dict[str, Any] | None,
    payload: object = ...,
    *,
    message_id: UUID | None = None,
    raw: str | None = None,
    headers: dict[str, str] | None = None,
    deliveries: int = 1,
) -> Message:
    """A claimed message. `raw` is a payload's exact text."""
    text = raw if raw is not None else None if payload is ... else orjson.dumps(payload).decode()
    return Message(
        message_id=message_id or uuid4(),
        seq=1,
        topic="test",
        key=None,
        payload=text,
        headers=orjson.dumps(headers or {}).decode(),
        target=None if target is None else orjson.dumps(target).decode(),
        deliveries=deliveries,
        attempts=0,
        setbacks=0,
        age_s=0.0,
        lease_token=1,
    )


def start(workflow_id: str, workflow: str = "Nothing", task_queue: str = "unserved", **more: object) -> dict[str, Any]:
    """The target of a start."""
    basic = {"operation": "start_workflow", "workflow": workflow, "workflow_id": workflow_id, "task_queue": task_queue}
    return basic | more


@pytest.fixture
def workflow_id() -> str:
    return f"wf-{uuid4()}"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without Temporal's variables, to be filled by the test."""
    for name in (
        "TEMPORAL_ADDRESS",
        "TEMPORAL_NAMESPACE",
        "TEMPORAL_PROFILE",
        "TEMPORAL_CONFIG_FILE",
        "TEMPORAL_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
async def sink(temporal_server: SharedServer, environment: pytest.MonkeyPatch) -> AsyncIterator[Sink]:
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    async with temporal_sink(CONTEXT) as opened:
        yield opened
