"""What Temporal itself says about the executions that were started: the times of their first events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client
from temporalio.service import RPCError

from outbox.model.errors import OutboxError

_AT_ONCE = 8
_READY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since 1970 by the clock of Temporal's host. None for what has not happened."""

    started_s: float
    task_s: float | None
    """When a worker began the first workflow task."""


async def first_events(client: Client, workflow_ids: Iterable[str]) -> dict[str, Times]:
    """The times by workflow id, for the workflows that Temporal has."""
    found: dict[str, Times] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def look(workflow_id: str) -> None:
        async with limiter:
            with suppress(RPCError):
                times = await _of(client, workflow_id)
                if times is not None:
                    found[workflow_id] = times

    async with anyio.create_task_group() as tasks:
        for workflow_id in workflow_ids:
            tasks.start_soon(look, workflow_id)
    return found


async def _of(client: Client, workflow_id: str) -> Times | None:
    request = GetWorkflowExecutionHistoryRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=8
    )
    answer = await client.workflow_service.get_workflow_execution_history(request)
    at = {event.event_type: event.event_time.ToNanoseconds() / 1e9 for event in reversed(answer.history.events)}
    started_s = at.get(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)
    return None if started_s is None else Times(started_s, at.get(EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED))


async def finish(client: Client, workflow_ids: Iterable[str], *, terminate: bool) -> None:
    """Wait until these workflows have ended, or end them if no worker runs them: none stays on the server."""
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def end(workflow_id: str) -> None:
        handle = client.get_workflow_handle(workflow_id)
        async with limiter:
            with suppress(RPCError):
                await (handle.terminate("end of the benchmark") if terminate else handle.result())

    with anyio.move_on_after(60):
        async with anyio.create_task_group() as tasks:
            for workflow_id in workflow_ids:
                tasks.start_soon(end, workflow_id)


@asynccontextmanager
async def workflow_worker(task_queue: str) -> AsyncIterator[None]:
    """A Temporal worker in a process of its own for the block. It ends when its standard input does, as with us."""
    command = [sys.executable, "-m", "outbox_bench.load.workflow_worker", task_queue]
    # From where this package is found, also in a checkout that is not installed.
    where = Path(__file__).parents[3]
    async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None, cwd=where) as process:
        try:
            assert process.stdout is not None
            with anyio.move_on_after(_READY_WITHIN_S) as waiting:
                await process.stdout.receive()
            if waiting.cancelled_caught:
                raise OutboxError(f"the workflow worker was not ready within {_READY_WITHIN_S:.0f} s")
            yield
        finally:
            with anyio.CancelScope(shield=True), suppress(ProcessLookupError):
                process.kill()
                await process.wait()
