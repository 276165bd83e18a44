"""Days that pass in seconds: the dev server's time skipping, where the server has it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import PollWorkflowExecutionTimeSkippingRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

SERVER_CONFIG = {"frontend.WorkflowTimeSkippingEnabled": True}
"""Dynamic configuration of a server that is to have it; servers that do not know the key ignore it."""


class Time:
    """Lets time pass for single workflows of any origin."""

    def __init__(self, client: Client) -> None:
        from temporalio.testing import TimeSkipper

        self._skipper = TimeSkipper(client)

    async def pass_by(self, handle: WorkflowHandle[Any, Any], duration: timedelta) -> None:
        """Advance a workflow's clock, timers included. Waits for the activities that run meanwhile."""
        await self._skipper.fast_forward(handle, duration)


async def why_not(client: Client) -> str | None:
    """Why time cannot be skipped with this SDK on this server; None where it can be."""
    try:
        from temporalio.testing import TimeSkipper  # noqa: F401
    except ImportError:
        return "this SDK has no TimeSkipper"
    absent = WorkflowExecution(workflow_id="absent")
    request = PollWorkflowExecutionTimeSkippingRequest(
        namespace=client.namespace, workflow_execution=absent, fast_forward_id="none"
    )
    try:
        await client.workflow_service.poll_workflow_execution_time_skipping(request, retry=False)
    except RPCError as error:
        return f"time skipping: {error.message}" if error.status is RPCStatusCode.UNIMPLEMENTED else None
    return None


async def time_of(client: Client) -> Time:
    """Time that can be skipped; skips the test, with the reason, where it cannot."""
    if reason := await why_not(client):
        pytest.skip(reason)
    return Time(client)
