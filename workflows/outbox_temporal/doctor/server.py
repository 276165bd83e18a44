"""Examines Temporal itself: the way there, the credentials, each namespace, and who polls its task queues."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import anyio
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from outbox.model.finding import Check, Finding
from outbox.model.sink import Demand
from outbox_temporal.doctor.routing import Queue, Wanted
from outbox_temporal.sink.connection_fault import explain, said

TEMPORAL = Check("Temporal", ("fault",))
CREDENTIALS = Check("Temporal's credentials", ("fault",))
NAMESPACE = Check("namespace", ("warning", "fault"))
RETENTION = Check("retention", ("warning",))
QUEUES = Check("task queues", ("warning",))
CHECKS = (TEMPORAL, CREDENTIALS, NAMESPACE, RETENTION, QUEUES)

T = TypeVar("T")
_REFUSED = re.compile("unauthenticated|permission_?denied", re.IGNORECASE)
_MOST_QUEUES, _QUEUES_AT_ONCE = 50, 8
_DAY_S, _HOUR_S = 86_400.0, 3600.0


class Asked:
    """The other side, asked one bounded question at a time."""

    def __init__(self, client: Client, timeout: timedelta) -> None:
        self._service = client.workflow_service
        self._timeout = timeout
        self.address = client.service_client.config.target_host
        self.namespace = client.namespace

    async def version(self) -> str:
        """The server's. Raises RPCError; RuntimeError where there is no connection."""
        request = GetSystemInfoRequest()
        return (await self._service.get_system_info(request, retry=False, timeout=self._timeout)).server_version

    async def retention_s(self, namespace: str) -> float:
        """For how long a namespace keeps what has ended. Raises RPCError."""
        request = DescribeNamespaceRequest(namespace=namespace)
        answer = await self._service.describe_namespace(request, retry=False, timeout=self._timeout)
        return answer.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds()

    async def pollers(self, queue: Queue) -> int:
        """Workers that have asked for workflow tasks in the last five minutes. Raises RPCError."""
        request = DescribeTaskQueueRequest(
            namespace=queue.namespace,
            task_queue=TaskQueue(name=queue.name),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        answer = await self._service.describe_task_queue(request, retry=False, timeout=self._timeout)
        return len(answer.pollers)


async def examine(asked: Asked, wanted: Wanted, demand: Demand | None) -> list[Finding]:
    """From the way there to those who poll. Raises nothing."""
    found, reached = await _reach(asked)
    if not reached:
        because = "Temporal gives no answer"
        return [*found, *(check.untried(because) for check in CHECKS if check.what not in {f.what for f in found})]
    kept_s: dict[str, float | None] = {}
    for namespace in wanted.namespaces:
        found += await _examine_namespace(asked, namespace, kept_s)
    lasting: list[Finding] = []
    for namespace, s in kept_s.items():
        lasting += () if s is None else judged_retention(namespace, s, asked, demand)
    if kept_s.get(asked.namespace) is None:
        lasting.append(RETENTION.untried(f"namespace {asked.namespace} does not say it"))
    queues = [queue for queue in wanted.queues if queue.namespace in kept_s]
    return [*found, *lasting, *await _examine_queues(asked, queues, wanted)]


async def _reach(asked: Asked) -> tuple[list[Finding], bool]:
    try:
        version = await asked.version()
    except (RPCError, RuntimeError) as error:
        return [refusal(error, asked.address)], False
    return [
        TEMPORAL.good(f"{asked.address} answers, server {version}"),
        CREDENTIALS.good("accepted"),
    ], True


def refusal(error: Exception, address: str) -> Finding:
    """What it means that the first question has no answer."""
    text = str(error)
    status = error.status.name if isinstance(error, RPCError) else ""
    if _REFUSED.search(f"{status} {text}"):
        return CREDENTIALS.fault(
            f"{address} does not let us in: {said(text)}",
            "TEMPORAL_API_KEY=…  # or TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH",
        )
    found = explain(text)
    return TEMPORAL.fault(f"{address}: {found.cause}", found.cure)


async def _examine_namespace(asked: Asked, namespace: str, kept_s: dict[str, float | None]) -> list[Finding]:
    """Look a namespace up. If it is there, its retention goes to `kept_s`: None if Temporal does not say it."""
    try:
        kept_s[namespace] = await asked.retention_s(namespace)
    except (RPCError, RuntimeError) as error:
        if not (isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND):
            kept_s[namespace] = None
        return [_unknown_namespace(error, asked, namespace)]
    return [NAMESPACE.good(f"{namespace} is there")]


def _unknown_namespace(error: Exception, asked: Asked, namespace: str) -> Finding:
    status = error.status if isinstance(error, RPCError) else None
    if status is RPCStatusCode.NOT_FOUND:
        create = f"{_operate(asked, 'create', namespace)} 720h"
        if namespace == asked.namespace:
            return NAMESPACE.fault(f"there is no {namespace}", f"{create}  # or correct TEMPORAL_NAMESPACE")
        return NAMESPACE.warning(f"there is no {namespace}, which routes or waiting messages name", create)
    if status is RPCStatusCode.PERMISSION_DENIED:  # a key may start workflows and not read namespaces
        cure = "allow these credentials to describe it; or start a worker and see /readyz"
        return NAMESPACE.warning(
            f"the credentials may not describe {namespace}: whether it is there is not known", cure
        )
    if status is RPCStatusCode.UNAUTHENTICATED:
        return refusal(error, asked.address)
    if status is RPCStatusCode.INVALID_ARGUMENT:
        return NAMESPACE.fault(f"{namespace!r} can be no namespace: {said(str(error))}", "correct TEMPORAL_NAMESPACE")
    return NAMESPACE.untried(f"asking for {namespace} failed: {said(str(error))}")


def judged_retention(namespace: str, kept_s: float, asked: Asked, demand: Demand | None) -> Iterator[Finding]:
    """Whether Temporal remembers for as long as the outbox looks back."""
    if demand is None:
        yield RETENTION.untried("for how long the outbox looks back is not known without it")
        return
    kept, own = _span(kept_s), namespace == asked.namespace
    dead_s = max((s for name, s in demand.dead_s.items() if name == namespace or (name is None and own)), default=0.0)
    if dead_s > kept_s:
        yield RETENTION.warning(
            f"{namespace} keeps what has ended for {kept}, and a dead letter was first tried {_span(dead_s)} ago: "
            "requeued, it may start a second time",
            f"outbox dead list --older-than {int(kept_s)}s",
        )
    if own and demand.history_s > kept_s:
        yield RETENTION.warning(
            f"{namespace} keeps what has ended for {kept}, the history {_span(demand.history_s)}: what is older cannot "
            "be audited, and its workflow ids can start again",
            f"{_operate(asked, 'update', namespace)} {demand.history_s / _HOUR_S:.0f}h  "
            f"# or OUTBOX_HISTORY_DAYS={max(1, int(kept_s / _DAY_S))}",
        )
    if own and kept_s >= max(dead_s, demand.history_s):
        yield RETENTION.good(f"{namespace} keeps what has ended for {kept}, no less than the outbox looks back")


async def _examine_queues(asked: Asked, queues: Sequence[Queue], wanted: Wanted) -> list[Finding]:
    """Ask who polls each task queue, several at once."""
    found: dict[Queue, Finding] = {}
    limiter = anyio.CapacityLimiter(_QUEUES_AT_ONCE)

    async def look(queue: Queue) -> None:
        async with limiter:
            found[queue] = await _examine_queue(asked, queue)

    async with anyio.create_task_group() as tasks:
        for queue in queues[:_MOST_QUEUES]:
            tasks.start_soon(look, queue)
    wrong = [found[queue] for queue in queues[:_MOST_QUEUES] if found[queue].grade != "good"]
    if wanted.queueless:
        wrong.append(QUEUES.warning("messages wait that name no task queue", "OUTBOX_TEMPORAL_TASK_QUEUE=…"))
    if len(queues) > _MOST_QUEUES:
        wrong.append(QUEUES.untried(f"there are {len(queues)}: {_MOST_QUEUES} were asked about"))
    if not wrong and len(queues) < len(wanted.queues):
        wrong.append(QUEUES.untried("their namespace is not there"))
    named = ", ".join(queue.name for queue in queues)
    return wrong or [
        QUEUES.good(f"polled: {named}" if queues else "none is named by a route, a waiting or a recent message")
    ]


async def _examine_queue(asked: Asked, queue: Queue) -> Finding:
    label = queue.name if queue.namespace == asked.namespace else f"{queue.name} in {queue.namespace}"
    try:
        pollers = await asked.pollers(queue)
    except (RPCError, RuntimeError) as error:
        return QUEUES.untried(f"asking who polls {label} failed: {said(str(error))}")
    if pollers:
        return QUEUES.good(f"{label} is polled")
    cure = f"start a worker of task queue {queue.name}, or correct the name"
    return QUEUES.warning(f"no worker polls {label}: workflows are started and stand still", cure)


def _operate(asked: Asked, what: str, namespace: str) -> str:
    """The command that makes or changes a namespace, up to its retention."""
    return f"temporal operator namespace {what} --address {asked.address} --namespace {namespace} --retention"


def _span(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds / _DAY_S:.3g} d" if seconds >= _DAY_S else f"{seconds / _HOUR_S:.3g} h"
