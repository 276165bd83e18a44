"""What the relay is compared with: a loop that starts workflows as fast as Temporal takes them, without the outbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Literal
from uuid import UUID, uuid4

import anyio
from temporalio.api.common.v1 import Memo, Payload, Payloads, WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import Client

from outbox_bench.load.definitions import NAME

TASK_QUEUE = "outbox-bench"
WORKFLOW = "Bench"
TEXT = "x" * 100
CALL_TIMEOUT = timedelta(seconds=4.5)

Kind = Literal["raw", "client"]


def request(namespace: str, message_id: UUID, workflow_id: str) -> StartWorkflowExecutionRequest:
    """The start that the relay's sink makes of one of the backlog's messages; a test compares them."""
    metadata = {"encoding": b"json/plain"}
    return StartWorkflowExecutionRequest(
        namespace=namespace,
        workflow_id=workflow_id,
        workflow_type=WorkflowType(name=WORKFLOW),
        task_queue=TaskQueue(name=TASK_QUEUE),
        input=Payloads(payloads=[Payload(metadata=metadata, data=b'{"text" : "%s"}' % TEXT.encode())]),
        identity=NAME,
        request_id=str(message_id),
        workflow_id_reuse_policy=WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
        workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        memo=Memo(fields={"outbox_message_id": Payload(metadata=metadata, data=b'"%s"' % str(message_id).encode())}),
    )


async def start_many(client: Client, kind: Kind, count: int, concurrency: int) -> None:
    """Start this many workflows, each of `concurrency` loops the next as soon as its last is acknowledged.

    `raw` calls the service as the sink does; `client` is `Client.start_workflow`, as applications do.
    """
    numbers = iter(range(count))
    service = client.workflow_service

    async def raw() -> None:
        message_id = uuid4()
        start = request(client.namespace, message_id, f"bench-{message_id}")
        await service.start_workflow_execution(start, retry=False, timeout=CALL_TIMEOUT)

    async def high_level() -> None:
        await client.start_workflow(WORKFLOW, {"text": TEXT}, id=f"bench-{uuid4()}", task_queue=TASK_QUEUE)

    start = raw if kind == "raw" else high_level
    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(_loop, start, numbers)


async def _loop(start: Callable[[], Awaitable[None]], numbers: Iterator[int]) -> None:
    for _ in numbers:
        await start()
