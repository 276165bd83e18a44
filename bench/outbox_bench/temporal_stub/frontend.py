"""A stand-in for Temporal's frontend, in a process of its own: takes starts and signals as fast as clients can send.

    python -m outbox_bench.temporal_stub.frontend [--port 7244] [--latency-ms 5 --jitter-ms 2 --tail 1.0] …

Temporal's dev server takes some 200 starts a second, so nothing faster can be measured with it. This speaks the same
protocol to the real SDK, remembers workflow ids and request ids as Temporal does, and executes nothing: a workflow that
was started runs until it is forgotten. An answer takes `latency-ms`, plus a lognormal time: its median is `jitter-ms`,
and its logarithm deviates by `tail`. A seed makes it repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from math import log
from random import Random
from time import time_ns
from uuid import uuid4

import uvloop
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import GrpcStatus, WorkflowExecution
from temporalio.api.enums.v1 import (
    EventType,
    ResourceExhaustedCause,
    ResourceExhaustedScope,
    WorkflowExecutionStatus,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from temporalio.api.errordetails.v1 import (
    NotFoundFailure,
    ResourceExhaustedFailure,
    WorkflowExecutionAlreadyStartedFailure,
)
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsResponse,
    DescribeNamespaceRequest,
    DescribeNamespaceResponse,
    GetSystemInfoResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    SignalWithStartWorkflowExecutionRequest,
    SignalWithStartWorkflowExecutionResponse,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)
from temporalio.bridge.proto.health.v1.health_pb2 import HealthCheckResponse
from temporalio.service import RPCStatusCode

from outbox_bench.temporal_stub.grpc_server import Connection, GrpcRefusal, Reply

_WORKFLOWS = b"/temporal.api.workflowservice.v1.WorkflowService/"
_HEALTH = b"/grpc.health.v1.Health/Check"
_RETENTION_S = 86_400
_RUNNING = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
_USE_EXISTING = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
_TERMINATE_EXISTING = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
_REJECT_DUPLICATE = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_TERMINATE_IF_RUNNING = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
_OVERLOADED = ResourceExhaustedFailure(
    cause=ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT,
    scope=ResourceExhaustedScope.RESOURCE_EXHAUSTED_SCOPE_NAMESPACE,
)

Start = StartWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest
Key = tuple[str, str]
"""Namespace and workflow id."""


@dataclass(frozen=True, slots=True)
class FrontendOptions:
    """How the frontend behaves. Every field is an option of the command line."""

    latency_ms: float = 0.0
    """What every answer takes at least."""
    jitter_ms: float = 0.0
    """Median of the random part."""
    tail: float = 1.0
    """Deviation of the random part's logarithm: at 1.0 its p99 is ten times its median."""
    throttled: float = 0.0
    """Share of starts and signals refused with RESOURCE_EXHAUSTED."""
    unavailable: float = 0.0
    """Share of starts and signals refused with UNAVAILABLE."""
    remembered: int = 200_000
    """Workflows remembered; the oldest are forgotten, as after a namespace's retention."""
    seed: int = 1

    def arguments(self) -> list[str]:
        """The command line's form."""
        return [f"--{field.name.replace('_', '-')}={getattr(self, field.name)}" for field in fields(self)]


@dataclass(slots=True)
class Execution:
    """A workflow that was started."""

    run_id: str
    start_request_id: str
    started_ns: int
    """Since 1970."""
    attached: set[str] | None = None
    """Request ids of other starts that were content with this run."""

    def belongs_to(self, request_id: str) -> bool:
        """Whether this start is a repeat."""
        return request_id == self.start_request_id or (self.attached is not None and request_id in self.attached)


class FakeFrontend:
    """Temporal's answers to the few calls that a relay makes."""

    def __init__(self, options: FrontendOptions) -> None:
        self._options = options
        self._random = Random(options.seed)  # noqa: S311 - latency is no secret
        self._refused = options.throttled + options.unavailable
        self._executions: OrderedDict[Key, Execution] = OrderedDict()
        self._started = 0
        workflows: dict[bytes, Callable[[bytes], bytes | GrpcRefusal]] = {
            b"StartWorkflowExecution": self._start,
            b"SignalWithStartWorkflowExecution": self._signal_with_start,
            b"SignalWorkflowExecution": self._signal,
        }
        others: dict[bytes, Callable[[bytes], bytes | GrpcRefusal]] = {
            b"GetSystemInfo": _system_info,
            b"DescribeNamespace": _namespace,
            b"CountWorkflowExecutions": self._count,
            b"GetWorkflowExecutionHistory": self._history,
        }
        self._commands = {_WORKFLOWS + name: method for name, method in workflows.items()}
        self._questions = {_WORKFLOWS + name: method for name, method in others.items()} | {_HEALTH: _health}

    def serve(self, path: bytes, request: bytes) -> Reply:
        """Answer one call. What it changes is changed now, however late the answer arrives."""
        method = self._commands.get(path)
        try:
            if method is not None:
                refusal = self._refusal() if self._refused else None
                return Reply(refusal or method(request), self._latency_s())
            method = self._questions.get(path)
            if method is None:
                return Reply(
                    GrpcRefusal(RPCStatusCode.UNIMPLEMENTED, f"this stand-in does not implement {path.decode()}")
                )
            return Reply(method(request))
        except DecodeError as error:
            return Reply(GrpcRefusal(RPCStatusCode.INTERNAL, str(error)))

    def _latency_s(self) -> float:
        options = self._options
        random_ms = self._random.lognormvariate(log(options.jitter_ms), options.tail) if options.jitter_ms else 0.0
        return (options.latency_ms + random_ms) / 1000

    def _refusal(self) -> GrpcRefusal | None:
        """Bad luck, with the configured probability."""
        dice = self._random.random()
        if dice < self._options.throttled:
            return _refuse(RPCStatusCode.RESOURCE_EXHAUSTED, "namespace rate limit exceeded", _OVERLOADED)
        if dice < self._refused:
            return GrpcRefusal(RPCStatusCode.UNAVAILABLE, "the stand-in is set to be unavailable at times")
        return None

    def _start(self, message: bytes) -> bytes | GrpcRefusal:
        request = StartWorkflowExecutionRequest.FromString(message)
        if fault := _fault(request):
            return GrpcRefusal(RPCStatusCode.INVALID_ARGUMENT, fault)
        key = request.namespace, request.workflow_id
        known = self._executions.get(key)
        started = True
        if known is None or (_replaces(request) and not known.belongs_to(request.request_id)):
            known = self._execute(key, request.request_id)
        elif not known.belongs_to(request.request_id):
            if request.workflow_id_conflict_policy != _USE_EXISTING:
                return _already_started(request.workflow_id, known)
            started = False
            if request.on_conflict_options.attach_request_id:
                known.attached = (known.attached or set()) | {request.request_id}
        return StartWorkflowExecutionResponse(run_id=known.run_id, started=started, status=_RUNNING).SerializeToString()

    def _signal_with_start(self, message: bytes) -> bytes | GrpcRefusal:
        """No workflow ever closes here, so there is always one to signal."""
        request = SignalWithStartWorkflowExecutionRequest.FromString(message)
        if fault := _fault(request):
            return GrpcRefusal(RPCStatusCode.INVALID_ARGUMENT, fault)
        key = request.namespace, request.workflow_id
        known = self._executions.get(key)
        fresh = known is None
        known = known or self._execute(key, request.request_id)
        return SignalWithStartWorkflowExecutionResponse(run_id=known.run_id, started=fresh).SerializeToString()

    def _signal(self, message: bytes) -> bytes | GrpcRefusal:
        request = SignalWorkflowExecutionRequest.FromString(message)
        target: WorkflowExecution = request.workflow_execution
        known = self._executions.get((request.namespace, target.workflow_id))
        if known is None or target.run_id not in ("", known.run_id):
            text = f"workflow not found for ID: {target.workflow_id}"
            return _refuse(RPCStatusCode.NOT_FOUND, text, NotFoundFailure())
        return b""

    def _count(self, _message: bytes) -> bytes:
        """Every run that was ever started, also if it is forgotten. Queries are not understood."""
        return CountWorkflowExecutionsResponse(count=self._started).SerializeToString()

    def _history(self, message: bytes) -> bytes | GrpcRefusal:
        """All that happens to a workflow here: it is started."""
        request = GetWorkflowExecutionHistoryRequest.FromString(message)
        workflow_id = request.execution.workflow_id
        known = self._executions.get((request.namespace, workflow_id))
        if known is None:
            return _refuse(RPCStatusCode.NOT_FOUND, f"workflow not found for ID: {workflow_id}", NotFoundFailure())
        response = GetWorkflowExecutionHistoryResponse()
        event = response.history.events.add(event_id=1, event_type=EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)
        event.event_time.FromNanoseconds(known.started_ns)
        return response.SerializeToString()

    def _execute(self, key: Key, request_id: str) -> Execution:
        """Begin a run, and forget the oldest if they are too many."""
        executions = self._executions
        executions.pop(key, None)
        if len(executions) >= self._options.remembered:
            executions.popitem(last=False)
        execution = executions[key] = Execution(str(uuid4()), request_id or str(uuid4()), time_ns())
        self._started += 1
        return execution


def _replaces(request: StartWorkflowExecutionRequest) -> bool:
    """Whether a start ends the run that holds its workflow id."""
    return (
        request.workflow_id_conflict_policy == _TERMINATE_EXISTING
        or request.workflow_id_reuse_policy == _TERMINATE_IF_RUNNING
    )


def _fault(request: Start) -> str | None:
    """Why the server would not take this request at all."""
    conflict, reuse = request.workflow_id_conflict_policy, request.workflow_id_reuse_policy
    if not request.workflow_id:
        return "WorkflowId is not set on request."
    if not request.workflow_type.name:
        return "WorkflowType is not set on request."
    if not request.task_queue.name:
        return "TaskQueue is not set on request."
    if (conflict and reuse == _TERMINATE_IF_RUNNING) or (conflict, reuse) == (_TERMINATE_EXISTING, _REJECT_DUPLICATE):
        return "Invalid WorkflowIDReusePolicy for this WorkflowIDConflictPolicy."
    return None


def _already_started(workflow_id: str, holder: Execution) -> GrpcRefusal:
    failure = WorkflowExecutionAlreadyStartedFailure(
        start_request_id=holder.start_request_id, run_id=holder.run_id, first_execution_run_id=holder.run_id
    )
    text = f"Workflow execution is already running. WorkflowId: {workflow_id}, RunId: {holder.run_id}."
    return _refuse(RPCStatusCode.ALREADY_EXISTS, text, failure)


def _refuse(
    code: RPCStatusCode,
    message: str,
    failure: WorkflowExecutionAlreadyStartedFailure | NotFoundFailure | ResourceExhaustedFailure,
) -> GrpcRefusal:
    """A refusal with its detail, packed as Temporal packs it."""
    status = GrpcStatus(code=code, message=message)
    status.details.add().Pack(failure)
    return GrpcRefusal(code, message, status.SerializeToString())


def _system_info(_message: bytes) -> bytes:
    return GetSystemInfoResponse(server_version="stub").SerializeToString()


def _health(_message: bytes) -> bytes:
    return HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()


def _namespace(message: bytes) -> bytes:
    """Any namespace exists."""
    request = DescribeNamespaceRequest.FromString(message)
    response = DescribeNamespaceResponse()
    response.namespace_info.name = request.namespace
    response.config.workflow_execution_retention_ttl.FromSeconds(_RETENTION_S)
    return response.SerializeToString()


async def run(host: str, port: int, options: FrontendOptions) -> None:
    """Serve until cancelled."""
    frontend = FakeFrontend(options)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(frontend.serve), host, port)
    gc.freeze()
    async with server:
        await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m outbox_bench.temporal_stub.frontend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7244)
    defaults = FrontendOptions()
    for field in fields(defaults):
        default = getattr(defaults, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args(argv))
    host, port = given.pop("host"), given.pop("port")
    with suppress(KeyboardInterrupt):
        uvloop.run(run(host, port, FrontendOptions(**given)))


if __name__ == "__main__":
    main()
