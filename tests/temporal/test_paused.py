"""A paused workflow is open: a repeat of a delivery reaches it as it reaches a running one."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import PauseWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle

from outbox.model.sink import Delivered
from outbox_temporal.servers.temporal import TemporalServer
from outbox_temporal.sink import temporal_sink
from tests.temporal.conftest import CONTEXT, message, start

pytestmark = pytest.mark.timeout(60)

SIGNALS = {
    "signal_workflow": {"signal": "s"},
    "signal_with_start_workflow": {"signal": "s", "arguments": "none", "signal_arguments": "one"},
}


@pytest.fixture(scope="module")
def pausing_server() -> Iterator[TemporalServer]:
    """A server on which workflows can be paused."""
    with TemporalServer.start(ui=False, dynamic_config={"frontend.WorkflowPauseEnabled": True}) as server:
        yield server


@pytest.mark.parametrize("operation", SIGNALS)
async def test_repeat_of_a_signal_delivers_its_payload_to_a_paused_workflow(
    pausing_server: TemporalServer, environment: pytest.MonkeyPatch, workflow_id: str, operation: str
) -> None:
    environment.setenv("TEMPORAL_ADDRESS", pausing_server.address)
    client = await Client.connect(pausing_server.address)
    handle = await client.start_workflow("Nothing", id=workflow_id, task_queue="unserved")
    await client.workflow_service.pause_workflow_execution(
        PauseWorkflowExecutionRequest(
            namespace="default", workflow_id=workflow_id, identity="test", request_id=str(uuid4())
        )
    )
    target = start(workflow_id) | {"operation": operation, **SIGNALS[operation]}
    repeat = message(target, {"amount": 7}, deliveries=2)
    async with temporal_sink(CONTEXT) as sink:
        for _ in range(2):
            assert isinstance(await sink.deliver(repeat), Delivered)
    [signal] = await _signals(handle)
    [argument] = signal.workflow_execution_signaled_event_attributes.input.payloads
    assert argument.data == b'{"amount":7}'


async def _signals(handle: WorkflowHandle) -> list[HistoryEvent]:
    history = await handle.fetch_history()
    return [event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")]
