"""Asks Temporal, at a bounded rate and with a bounded number of requests in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import anyio
import orjson
from temporalio.api.common.v1 import Memo, WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from outbox.model.errors import OutboxError
from outbox_temporal.audit.records import Run
from outbox_temporal.sink.outcomes import detail
from outbox_temporal.sink.redelivery import quoted
from outbox_temporal.target.target import MEMO_KEY

_PAGE = 1000
"""Temporal's own largest page (`frontend.visibilityMaxPageSize`)."""
_TIMEOUT = timedelta(seconds=30)
_CHEAPER = 100
"""How many questions for one run cost as much as one for a list. Temporal's limits for a namespace are 2,400 a second
(`frontend.namespaceRPS`) and 10 (`frontend.namespaceRPS.visibility`)."""
_CONTINUED = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW

T = TypeVar("T")


class TemporalRefused(OutboxError):
    """Temporal did not answer a question, after retries. The text is one line."""


class Executions:
    """Temporal's workflow executions. `rate` is lists a second; every method may raise TemporalRefused."""

    def __init__(self, client: Client, *, rate: float, concurrency: int) -> None:
        self._service = client.workflow_service
        self._lists, self._looks = RequestPace(rate), RequestPace(rate * _CHEAPER)
        self._room = anyio.CapacityLimiter(concurrency)

    async def retention_s(self, namespace: str) -> float:
        """Seconds for which a namespace keeps what has ended."""
        request = DescribeNamespaceRequest(namespace=namespace)
        answer = await self._asked(
            f"describe namespace {namespace}",
            self._looks,
            lambda: self._service.describe_namespace(request, retry=True, timeout=_TIMEOUT),
        )
        return answer.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds()

    async def count(self, namespace: str, query: str) -> int:
        """How many runs a query finds, about."""
        request = CountWorkflowExecutionsRequest(namespace=namespace, query=query)
        answer = await self._asked(
            f"count workflows in {namespace}",
            self._lists,
            lambda: self._service.count_workflow_executions(request, retry=True, timeout=_TIMEOUT),
        )
        return answer.count

    async def pages(self, namespace: str, query: str) -> AsyncIterator[list[Run]]:
        """The runs that a query finds, in no order. One that ends during the query may come twice."""
        request = ListWorkflowExecutionsRequest(namespace=namespace, query=query, page_size=_PAGE)
        while True:
            answer = await self._asked(
                f"list workflows in {namespace}",
                self._lists,
                lambda: self._service.list_workflow_executions(request, retry=True, timeout=_TIMEOUT),
            )
            yield [_run(namespace, info) for info in answer.executions]
            if not answer.next_page_token:
                return
            request.next_page_token = answer.next_page_token

    async def look(self, namespace: str, workflow_id: str, run_id: str) -> Run | None:
        """One run as Temporal has it this moment, not as its lists show it; the current one for an empty run id."""
        execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
        request = DescribeWorkflowExecutionRequest(namespace=namespace, execution=execution)
        answer = await self._asked(
            f"describe workflow {workflow_id} in {namespace}",
            self._looks,
            lambda: self._described(request),
        )
        return None if answer is None else _run(namespace, answer)

    async def terminate(self, run: Run, reason: str) -> bool:
        """Terminate the chain of a run, and no other of its workflow id. Return whether it still ran."""
        request = TerminateWorkflowExecutionRequest(
            namespace=run.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run.workflow_id),
            first_execution_run_id=run.first_run_id or run.run_id,
            reason=reason,
            identity="outbox audit",
        )
        return await self._asked(
            f"terminate workflow {run.workflow_id} in {run.namespace}", self._looks, lambda: self._terminated(request)
        )

    async def _terminated(self, request: TerminateWorkflowExecutionRequest) -> bool:
        try:
            await self._service.terminate_workflow_execution(request, retry=True, timeout=_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and detail(error, NamespaceNotFoundFailure) is None:
                return False
            raise
        return True

    async def _described(self, request: DescribeWorkflowExecutionRequest) -> WorkflowExecutionInfo | None:
        try:
            answer = await self._service.describe_workflow_execution(request, retry=True, timeout=_TIMEOUT)
        except RPCError as error:
            gone = error.status is RPCStatusCode.NOT_FOUND and detail(error, NamespaceNotFoundFailure) is None
            if gone or error.status is RPCStatusCode.INVALID_ARGUMENT:  # such as a run id that is none
                return None
            raise
        return answer.workflow_execution_info

    async def _asked(self, doing: str, pace: RequestPace, call: Callable[[], Awaitable[T]]) -> T:
        async with self._room:
            await pace.turn()
            try:
                return await call()
            except RPCError as error:
                raise TemporalRefused(f"{doing}: {error.status.name}: {error.message}") from error
            except RuntimeError as error:  # the SDK's way to say that a connect failed
                raise TemporalRefused(f"{doing}: {error}") from error


class RequestPace:
    """Turns at an even rate."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1 / rate
        self._next_s = 0.0

    async def turn(self) -> None:
        """Return when it is one's turn."""
        now_s = anyio.current_time()
        at_s = max(now_s, self._next_s)
        self._next_s = at_s + self._gap_s
        if at_s > now_s:
            await anyio.sleep_until(at_s)


def started_between(since: datetime, until: datetime, workflows: Iterable[str], prefixes: Iterable[str]) -> str:
    """The query for runs that started within a time, if given only of some types or with ids that begin so."""
    which = [f"WorkflowType = {quoted(workflow)}" for workflow in workflows]
    which += [f"WorkflowId STARTS_WITH {quoted(prefix)}" for prefix in prefixes]
    within = f"StartTime >= {quoted(_instant(since))} AND StartTime < {quoted(_instant(until))}"
    return f"{within} AND ({' OR '.join(which)})" if which else within


def with_ids(workflow_ids: Iterable[str]) -> str:
    """The query for all runs of some workflows."""
    return f"WorkflowId IN ({', '.join(map(quoted, workflow_ids))})"


def listable(workflow_id: str) -> bool:
    """Whether Temporal's lists can be asked for an id: server 1.32 finds none with these, however they are quoted."""
    return workflow_id.isprintable() and not any(character in workflow_id for character in '"\\')


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _run(namespace: str, info: WorkflowExecutionInfo) -> Run:
    return Run(
        namespace=namespace,
        workflow_id=info.execution.workflow_id,
        run_id=info.execution.run_id,
        workflow=info.type.name,
        task_queue=info.task_queue,
        message_id=_message_id(info.memo),
        started_at=info.start_time.ToDatetime(tzinfo=UTC),
        continued=info.status == _CONTINUED,
        child=bool(info.parent_execution.workflow_id),
        first_run_id=info.first_run_id or None,
    )


def _message_id(memo: Memo) -> UUID | None:
    """The message that a memo names. Temporal's own field, never through a codec."""
    if MEMO_KEY not in memo.fields:
        return None
    try:
        return UUID(orjson.loads(memo.fields[MEMO_KEY].data))
    except (ValueError, TypeError, AttributeError):
        return None
