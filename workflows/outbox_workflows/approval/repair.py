"""Ends approvals that are still pending although their workflow was ended from outside.

A workflow that is terminated, or that runs into a time-out of its own, can write nothing down any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHistoryEventFilterType
from temporalio.service import RPCError, RPCStatusCode

from outbox_workflows.approval.types import SYSTEM, Request, Standing
from outbox_workflows.shared.arguments import Misfit, read
from outbox_workflows.shared.event_log import Origin, audit, emit
from outbox_workflows.shared.storable_text import storable

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox_workflows.shared.database import Application

_ENDED = {
    WorkflowExecutionStatus.TERMINATED: "was terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
    WorkflowExecutionStatus.FAILED: "failed",
}
"""Ends of a workflow after which its row may be pending all the same."""
_FOUND = (
    'WorkflowType in ("Approval", "EscalatingApproval") and ExecutionStatus in ("Terminated", "TimedOut", "Failed")'
)
_PENDING = """
select state, level, approver, coalesce(delegate, '') as delegate, deadline, reminders, revision
from app.approval where approval_id = $1 and workflow_id = $2 and state = 'pending'
for update
"""
_END = """
update app.approval
set state = $2, decided_by = $3, decided_at = $4, comment = $5, revision = $6, changed_at = now()
where approval_id = $1
"""


@dataclass(frozen=True, slots=True)
class Repaired:
    """An approval that was pending after the end of its workflow."""

    tenant_id: str
    approval_id: str
    workflow_id: str
    reason: str


async def repair(
    client: Client, application: Application, *, since: timedelta | None = None, dry_run: bool = False
) -> AsyncIterator[Repaired]:
    """End what is pending although its workflow has ended, within this time or as far back as Temporal keeps workflows.

    Each row becomes `failed`, with an entry of the audit trail and an event, in one transaction. Where `dry_run`,
    nothing is changed. Raises RPCError, DatabaseUnavailable or DatabaseRefused.
    """
    closed = "" if since is None else f' and CloseTime > "{(datetime.now(UTC) - since).isoformat()}"'
    seen: set[str] = set()
    async for found in client.list_workflows(_FOUND + closed):
        if found.id in seen:  # an earlier run of the same workflow
            continue
        seen.add(found.id)
        latest = await _latest(client, found.id)
        how = None if latest is None or latest.status is None else _ENDED.get(latest.status)
        if latest is None or how is None:  # it goes on, as after a reset
            continue
        repaired = await _read(client, latest, how)
        if repaired is not None and await _end(application, repaired, latest, dry_run=dry_run):
            yield repaired


async def _latest(client: Client, workflow_id: str) -> WorkflowExecution | None:
    """The latest run, or None if Temporal has just forgotten the workflow."""
    try:
        return await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def _read(client: Client, ended: WorkflowExecution, how: str) -> Repaired | None:
    """What the workflow was about, by its history; None if that names no approval that could have a row."""
    handle = client.get_workflow_handle(ended.id, run_id=ended.run_id)
    first = await anext(handle.fetch_history_events(page_size=1))
    given = first.workflow_execution_started_event_attributes.input.payloads
    try:
        request = read(Request, await client.data_converter.decode(given))
        UUID(request.tenant_id)
    except (Misfit, ValueError):
        return None
    last = await anext(handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT))
    return Repaired(request.tenant_id, request.approval_id, ended.id, _why(how, last))


def _why(how: str, last: HistoryEvent) -> str:
    said = ""
    if last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
        said = last.workflow_execution_terminated_event_attributes.reason
    elif last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
        said = last.workflow_execution_failed_event_attributes.failure.message
    return storable(" ".join(f"its workflow {how}: {said}".split()).removesuffix(":"))


async def _end(application: Application, repaired: Repaired, ended: WorkflowExecution, *, dry_run: bool) -> bool:
    """End the row if it is pending, and say whether it was."""
    async with application.as_tenant(UUID(repaired.tenant_id), "end an approval") as connection:
        row = await connection.fetchrow(_PENDING, repaired.approval_id, repaired.workflow_id)
        if row is None:
            return False
        if not dry_run:
            await _write(connection, repaired, dict(row), ended)
        return True


async def _write(connection: Connection, repaired: Repaired, row: dict[str, Any], ended: WorkflowExecution) -> None:
    about = row | {"state": "failed", "revision": row["revision"] + 1}
    standing = Standing(**about, decided_by=SYSTEM, decided_at=ended.close_time, comment=repaired.reason)
    await connection.execute(
        _END,
        repaired.approval_id,
        standing.state,
        standing.decided_by,
        standing.decided_at,
        standing.comment,
        standing.revision,
    )
    origin, detail = Origin(ended.id, ended.run_id), {"reason": repaired.reason}
    await audit(connection, SYSTEM, "failed", detail, of=origin)
    event = {"approval_id": repaired.approval_id, "actor": SYSTEM, **asdict(standing), **detail}
    await emit(connection, f"approval-{repaired.approval_id}", "approval.failed", event, of=origin)
