"""Typed access to the workflow families, for application code.

    from outbox_workflows.client import Workflows

    workflows = await Workflows.connect()
    async with database.transaction():
        ...
        await workflows.approvals.escalating(database, EscalatingRequest(tenant_id, "7", "A new laptop", ...))
    approval = await workflows.approvals.of(tenant_id, "7").started()
    standing = await approval.approve(ApprovalCommand("5f0c", actor="alice@example.com"))

Starts go through the outbox, in the caller's transaction; queries and commands go to Temporal.
Raises CommandRefused for a command that a workflow refuses, with the refusal's type as `code`. Raises WorkflowUnknown
for a workflow that does not exist (yet), and the errors of Temporal's SDK for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from outbox.model.schema_name import DEFAULT_SCHEMA
from outbox_temporal.sdk.client import connect
from outbox_workflows.client.families import Approvals, Organizations, Tenants
from outbox_workflows.client.running import CommandRefused, WorkflowUnknown
from outbox_workflows.client.start import Place
from outbox_workflows.shared.task_queue import DEFAULT_TASK_QUEUE

__all__ = ["CommandRefused", "Health", "WorkflowUnknown", "Workflows"]

_ANSWERS_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """Whether workflows can be started and carried out now."""

    well: bool
    workers: int
    """Workflow workers that poll the task queue."""
    fault: str | None
    """What is wrong, in a line."""


class Workflows:
    """The workflow families on one Temporal connection and one task queue."""

    def __init__(self, client: Client, *, task_queue: str = DEFAULT_TASK_QUEUE, schema: str = DEFAULT_SCHEMA) -> None:
        """`task_queue` is the workflow workers', `schema` the outbox's."""
        self.client = client
        self._task_queue = task_queue
        place = Place(client, task_queue, schema)
        self.approvals = Approvals(place)
        self.tenants = Tenants(place)
        self.organizations = Organizations(place)

    @classmethod
    async def connect(
        cls, *, task_queue: str = DEFAULT_TASK_QUEUE, schema: str = DEFAULT_SCHEMA, lazy: bool = False
    ) -> Self:
        """Connect to Temporal as its own variables and profiles say. With `lazy` it need not answer yet."""
        return cls(await connect(lazy=lazy), task_queue=task_queue, schema=schema)

    async def health(self) -> ServiceHealth:
        """Ask Temporal how it is, and for the workers at the task queue. Never raises for what is wrong there."""
        request = DescribeTaskQueueRequest(
            namespace=self.client.namespace,
            task_queue=TaskQueue(name=self._task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            answer = await self.client.workflow_service.describe_task_queue(
                request, retry=False, timeout=_ANSWERS_WITHIN
            )
        except (RPCError, RuntimeError) as error:  # the SDK's connect raises RuntimeError
            return ServiceHealth(well=False, workers=0, fault=f"Temporal does not answer: {error}")
        workers = len(answer.pollers)
        fault = None if workers else f"no worker polls the task queue {self._task_queue!r}: run `outbox workflows run`"
        return ServiceHealth(well=bool(workers), workers=workers, fault=fault)
