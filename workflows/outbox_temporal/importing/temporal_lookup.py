"""Asks Temporal about workflows, a bounded number of them at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple

import anyio
import orjson
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from outbox.model.errors import OutboxError
from outbox_temporal.importing.journal import Moved
from outbox_temporal.sdk.client import connect
from outbox_temporal.sink.outcomes import detail
from outbox_temporal.target.target import MEMO_KEY

AT_ONCE = 32
_TIMEOUT = timedelta(seconds=10)
_ENDED_BY_HAND = ("terminated", "canceled")


class Seen(NamedTuple):
    """The workflow that has a row's workflow id; its latest run."""

    status: str
    """`running`, or in Temporal's words how it ended."""
    workflow: str
    ours: bool
    """Whether the row's message started it, itself or through continue-as-new."""

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.status == "running"

    @property
    def ended_by_hand(self) -> bool:
        """Whether it was ended before its work was done."""
        return self.status in _ENDED_BY_HAND


class Lookup:
    """Describes workflows over one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def look(self, rows: Sequence[Moved]) -> list[Seen | None]:
        """Temporal's record of each row's workflow; None if it has none. Raises OutboxError."""
        found: list[Seen | None] = [None] * len(rows)
        faults: list[OutboxError] = []
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def one(place: int, row: Moved) -> None:
            async with limiter:
                if not faults:
                    try:
                        found[place] = await self._describe(row)
                    except OutboxError as error:
                        faults.append(error)

        async with anyio.create_task_group() as tasks:
            for place, row in enumerate(rows):
                tasks.start_soon(one, place, row)
        if faults:
            raise faults[0]
        return found

    async def _describe(self, row: Moved) -> Seen | None:
        request = DescribeWorkflowExecutionRequest(
            namespace=row.namespace or self._client.namespace,
            execution=WorkflowExecution(workflow_id=row.workflow_id),
        )
        try:
            answer = await self._client.workflow_service.describe_workflow_execution(
                request, retry=True, timeout=_TIMEOUT
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and detail(error, NamespaceNotFoundFailure) is None:
                return None
            raise OutboxError(f"Temporal gives no answer about {row.workflow_id!r}: {error.message}") from error
        info = answer.workflow_execution_info
        memo = info.memo.fields.get(MEMO_KEY)
        status = WorkflowExecutionStatus.Name(info.status).removeprefix("WORKFLOW_EXECUTION_STATUS_")
        ours = memo is not None and memo.data == orjson.dumps(str(row.message_id))
        return Seen(status.lower().replace("_", " "), info.type.name, ours)


@asynccontextmanager
async def temporal() -> AsyncIterator[Lookup]:
    """Connect as the environment says. Raises OutboxError where Temporal cannot be reached."""
    client = await connect(identity="outbox import")
    yield Lookup(client)
