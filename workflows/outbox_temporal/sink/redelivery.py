"""Finds out, before a message is delivered again, what an earlier delivery has done and what it could have reached.

Temporal recognises a repeat by its request id, but only in the current run of a workflow id. When the workflow has
continued as new, or has ended and another one has its id, a repeat would act twice, or on another workflow. So this
module asks first. An earlier delivery leaves traces. A start leaves the message id in the memo. A signal leaves its
request id in the run, also in a closed one. A cancellation and a termination leave the message id in their identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryReverseRequest,
    ListWorkflowExecutionsRequest,
    RequestCancelWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected, Throttled, Unavailable, Unknown
from outbox_temporal.sink.outcomes import detail, outcome_of
from outbox_temporal.sink.requests import Request
from outbox_temporal.target.target import MEMO_KEY, Command, Target

_MARGIN_S = 120.0
"""How far to look back beyond the enqueue: clocks differ, and claimed messages wait a little. More only costs time."""
_MOST_RUNS = 100
"""Runs of one workflow id since the enqueue that are looked at."""
_MOST_PAGES, _EVENTS = 5, 200
"""Of one run's history, from its end: pages, and events on each, that are looked at."""
_LONGEST = 3
"""A search ends after so many times the time-out of one call."""
_STARTS = ("start_workflow", "signal_with_start_workflow")


class Aim(NamedTuple):
    """The run, and the chain of runs, that a repeat may reach."""

    run_id: str
    first_run_id: str

    def limit(self, request: Request) -> None:
        """Have a request reach nothing else. A start needs no limit, and has none."""
        match request:
            case SignalWorkflowExecutionRequest():
                request.workflow_execution.run_id = self.run_id
            case RequestCancelWorkflowExecutionRequest() | TerminateWorkflowExecutionRequest():
                request.first_execution_run_id = self.first_run_id
            case _:
                pass


def was_tried_before(message: Message) -> bool:
    """Whether an earlier delivery of this message may have reached Temporal."""
    return message.deliveries > 1 or message.setbacks > 0


def must_look_back(message: Message, target: Target) -> bool:
    """Whether a delivery is a repeat that could do something twice, or reach the wrong workflow.

    The server refuses a second start with `reject_duplicate`: then the refusal is looked into.
    """
    if not was_tried_before(message) or target.run_id is not None:
        return False
    return target.operation != "start_workflow" or target.id_reuse_policy != "reject_duplicate"


def unasked(error: RPCError, *, foreign_namespace: bool) -> Outcome:
    """The outcome where Temporal did not answer our question: nothing was done."""
    outcome = outcome_of(error, foreign_namespace=foreign_namespace)
    text = f"an earlier delivery may have got through, and asking Temporal failed: {error.message}"
    match outcome:
        case Rejected() | Failed():
            return Failed(outcome.kind, text)
        case Throttled():  # lists have a limit of their own, which is no measure for deliveries
            return Throttled(outcome.kind, text, scope="message")
        case Unavailable() | Unknown():
            return replace(outcome, detail=text)
        case _:
            return outcome


class EarlierDeliveries:
    """Looks for what earlier deliveries did. Its calls raise RPCError, and RuntimeError where none can be made."""

    def __init__(self, namespace: str, timeout: timedelta) -> None:
        self._namespace = namespace
        self._timeout = timeout

    async def look_back(self, service: WorkflowService, message: Message, command: Command) -> Aim | Outcome | None:
        """Delivered, if an earlier delivery got through; else what the repeat may reach, None for no limit."""
        return await _Search(
            service, message, command, command.target.namespace or self._namespace, self._timeout
        ).run()


class _Search:
    def __init__(
        self, service: WorkflowService, message: Message, command: Command, namespace: str, timeout: timedelta
    ) -> None:
        self._service = service
        self._command = command
        self._message = message
        self._id = str(message.message_id)
        self._namespace = namespace
        self._timeout = timeout
        self._until_s = monotonic() + _LONGEST * timeout.total_seconds()
        self._since = datetime.now(UTC) - timedelta(seconds=message.age_s + _MARGIN_S)

    async def run(self) -> Aim | Outcome | None:
        workflow_id, operation = self._command.workflow_id, self._command.target.operation
        current = await self._described("")
        if current is None:
            return None
        if operation in _STARTS and self._is_ours(current):
            return Delivered(workflow_id, current.execution.run_id)
        runs = await self._others(current)
        if len(runs) >= _MOST_RUNS:
            return Failed(
                "REPEAT", f"it may have got through, and {workflow_id!r} has had too many runs since to find out"
            )
        if not _is_open(current):
            runs.insert(0, current)
        found = await self._reached(runs)
        if found is not None:
            return found
        return Aim(current.execution.run_id, current.first_run_id)

    async def _reached(self, runs: Sequence[WorkflowExecutionInfo]) -> Outcome | None:
        """What an earlier delivery did to runs that have ended."""
        operation = self._command.target.operation
        if operation in _STARTS:
            for run in runs:
                if self._is_ours(run):
                    return Delivered(self._command.workflow_id, run.execution.run_id)
        if operation == "start_workflow":
            return None
        check = self._has_signal if "signal" in operation else self._has_mark
        for run in runs:
            if monotonic() > self._until_s:
                return Unknown("REPEAT", "it may have got through, and finding that out took too long")
            if _is_open(run):  # so the list says, which is late
                now = await self._described(run.execution.run_id)
                if now is not None and _is_open(now):
                    return Unknown("REPEAT", "the workflow id got another run while earlier ones were looked at")
            if await check(run.execution.run_id):
                return Delivered(self._command.workflow_id, run.execution.run_id)
        return None

    async def _described(self, run_id: str) -> WorkflowExecutionInfo | None:
        request = DescribeWorkflowExecutionRequest(namespace=self._namespace, execution=self._execution(run_id))
        try:
            answer = await self._service.describe_workflow_execution(request, retry=False, timeout=self._timeout)
        except RPCError as error:
            if _is_gone(error):
                return None
            raise
        return answer.workflow_execution_info

    async def _others(self, current: WorkflowExecutionInfo) -> list[WorkflowExecutionInfo]:
        """Runs of the id that an earlier delivery may have reached, without the current one."""
        if _instant(current.start_time) < self._since:
            return []  # nothing else has had the id since the message exists
        request = ListWorkflowExecutionsRequest(
            namespace=self._namespace,
            query=f"WorkflowId = {quoted(self._command.workflow_id)}",
            page_size=_MOST_RUNS + 1,  # the latest come first
        )
        answer = await self._service.list_workflow_executions(request, retry=False, timeout=self._timeout)
        return [
            run
            for run in answer.executions
            if run.execution.run_id != current.execution.run_id
            and (_is_open(run) or _instant(run.close_time) >= self._since)
        ]

    def _is_ours(self, run: WorkflowExecutionInfo) -> bool:
        return is_ours(run, self._message)

    async def _has_signal(self, run_id: str) -> bool:
        """Whether the closed run has our request id: then it accepts a repeat, and refuses any other signal."""
        request = SignalWorkflowExecutionRequest(
            namespace=self._namespace,
            workflow_execution=self._execution(run_id),
            signal_name=self._command.target.signal or "",
            request_id=self._id,
        )
        try:
            await self._service.signal_workflow_execution(request, retry=False, timeout=self._timeout)
        except RPCError as error:
            if _is_gone(error):
                return False
            raise
        return True

    async def _has_mark(self, run_id: str) -> bool:
        """Whether the end of the run's history shows our request to cancel or our termination."""
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._namespace, execution=self._execution(run_id), maximum_page_size=_EVENTS
        )
        for _ in range(_MOST_PAGES):
            try:
                page = await self._service.get_workflow_execution_history_reverse(
                    request, retry=False, timeout=self._timeout
                )
            except RPCError as error:
                if _is_gone(error):
                    return False
                raise
            events = page.history.events
            if any(_identity(event).endswith(self._id) for event in events):
                return True
            if not page.next_page_token or not events or _instant(events[-1].event_time) < self._since:
                return False
            request.next_page_token = page.next_page_token
        return False

    def _execution(self, run_id: str) -> WorkflowExecution:
        return WorkflowExecution(workflow_id=self._command.workflow_id, run_id=run_id)


def is_ours(run: WorkflowExecutionInfo, message: Message) -> bool:
    """Whether the message started the run, or the chain that it belongs to."""
    memo = run.memo.fields.get(MEMO_KEY)
    return memo is not None and memo.data == orjson.dumps(str(message.message_id))


def _is_open(run: WorkflowExecutionInfo) -> bool:
    """Whether the run takes signals. Its status is no measure: a paused run is open too."""
    return not run.HasField("close_time")


def quoted(text: str) -> str:
    """A text as Temporal's queries have it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _identity(event: HistoryEvent) -> str:
    cancel, end = (
        event.workflow_execution_cancel_requested_event_attributes,
        event.workflow_execution_terminated_event_attributes,
    )
    return cancel.identity or end.identity


def _is_gone(error: RPCError) -> bool:
    """Whether the run is not there, or has ended, and the namespace is there."""
    return error.status is RPCStatusCode.NOT_FOUND and detail(error, NamespaceNotFoundFailure) is None


def _instant(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
