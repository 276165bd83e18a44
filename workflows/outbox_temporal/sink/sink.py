"""The Temporal adapter: `OUTBOX_SINK=outbox_temporal.sink:temporal_sink`.

A delivery is one raw call to Temporal's frontend under the message id as request id, without the SDK's retries: the
relay decides what an error means and when to try again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from time import monotonic

from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RequestCancelWorkflowExecutionRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from outbox.model.errors import place_of
from outbox.model.message import Message
from outbox.model.sink import (
    Action,
    Delivered,
    Failed,
    Outcome,
    Rejected,
    SinkContext,
    Throttled,
    Unavailable,
    Unclear,
    Unknown,
)
from outbox_temporal.sink import settings
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.sink.connection_fault import explain
from outbox_temporal.sink.frontend import Frontend, reach
from outbox_temporal.sink.link import Link, Reach, timed_out
from outbox_temporal.sink.outcomes import detail, outcome_of
from outbox_temporal.sink.payloads import InvalidMessage
from outbox_temporal.sink.redelivery import Aim, EarlierDeliveries, must_look_back, unasked, was_tried_before
from outbox_temporal.sink.requests import NoTaskQueue, Request, Requests
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import NO_TARGET, Command, Record, Target, parse

_CONNECT_SHARE, _CALL_SHARE = 0.35, 0.45
"""Of the time that a delivery may take: for the first call's connect, for the call, and the rest for one look back."""
_NOT_CONNECTED = (RuntimeError, ValueError)
"""The SDK's ways to say that the first connect failed: the server cannot be reached, or a setting cannot be used."""
_UNTOLD = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)
"""The server answers, and no more is known. A key may not read namespaces; a proxy may not know health checks."""
_COMPLETED = "already completed"
"""How the server says that a workflow exists and has ended; the code is NOT_FOUND in both cases."""


@asynccontextmanager
async def open_sink(context: SinkContext) -> AsyncIterator[TemporalSink]:
    """A sink on a lazy connection: it starts whether or not Temporal can be reached yet."""
    chosen = settings.load()
    path = chosen.routes_file()
    routes = None if path is None else Routes.load(path)
    if routes is not None:
        routes.require_task_queues(chosen.task_queue)
    connect_timeout_s = context.deliver_timeout_s * _CONNECT_SHARE
    again = partial(reach, identity=context.identity, lazy=True, connect_timeout_s=connect_timeout_s)
    leave = chosen.unroutable == "leave"
    frontend = await again()
    sink = TemporalSink(
        frontend,
        context,
        task_queue=chosen.task_queue,
        routes=routes,
        leave_unroutable=leave,
        reach=again,
        allowed=Allowed(chosen, frontend.namespace),
    )
    sink.place += "" if path is None else f", routes {path}"
    yield sink


class TemporalSink:
    """Implements `outbox.model.sink.Sink` and `outbox.model.sink.Forgetful`."""

    def __init__(
        self,
        frontend: Frontend,
        context: SinkContext,
        *,
        task_queue: str | None = None,
        routes: Routes | None = None,
        leave_unroutable: bool = False,
        reach: Reach = reach,
        allowed: Allowed | None = None,
    ) -> None:
        """`reach` makes another connection like the frontend's, for when that one has gone silent."""
        self._routes = routes
        self._leave_unroutable = leave_unroutable
        self._allowed = allowed or Allowed(settings.TemporalSettings(), frontend.namespace)
        self._link = Link(frontend.service, reach)
        self.place = f"Temporal at {frontend.service.config.target_host}, namespace {frontend.namespace}"
        """Where deliveries go, for people."""
        self._connected = False
        """Whether Temporal has answered before: until then a ValueError is about the settings, then about a message."""
        self._timeout = timedelta(seconds=context.deliver_timeout_s * _CALL_SHARE)
        self._repeats = EarlierDeliveries(frontend.namespace, self._timeout / 4)
        self._requests = Requests(
            namespace=frontend.namespace,
            identity=context.identity,
            task_queue=task_queue,
            converter=frontend.converter,
        )

    async def deliver(self, message: Message) -> Outcome:
        """Carry the message's target out, once, and return what is known then."""
        command = parse(message.target) if message.target is not None else self._routed(message)
        if not isinstance(command, Command):
            return command
        if (refused := self._allowed.refusal(command)) is not None:
            return refused
        try:
            request = await self._requests.build(message, command)
        except InvalidMessage as error:
            return Rejected(error.kind, str(error))
        except NoTaskQueue as error:  # it may be this worker's setting that is missing: the message may succeed yet
            return Failed("NO_TASK_QUEUE", str(error))
        except Exception as error:  # noqa: BLE001 - a codec or converter is foreign code: its faults are the message's
            return Failed(type(error).__name__, f"building the request raised {place_of(error)}")
        if message.large_bytes:
            command = command.without_texts()
        return await self._deliver(request, message, command)

    async def _deliver(self, request: Request, message: Message, command: Command) -> Outcome:
        began_s, asking = monotonic(), must_look_back(message, command.target)
        foreign = command.target.namespace not in (None, self._requests.namespace)
        await self._link.refresh()
        try:
            if asking:
                found = await self._repeats.look_back(self._link.service.workflow_service, message, command)
                if isinstance(found, Aim):
                    found.limit(request)
                elif found is not None:
                    return found
                asking = False
            run_id = await self._send(request)
            self._connected = True
            self._link.answered()
            action = None if message.target is None else _action(command.target)
            return Delivered(command.workflow_id, run_id or command.target.run_id, action=action)
        except RPCError as error:
            self._connected = True
            if timed_out(error):
                await self._link.missed(began_s)
            else:
                self._link.answered()
            if asking:
                return unasked(error, foreign_namespace=foreign)
            return await self._judge(error, message, command, foreign_namespace=foreign)
        except _NOT_CONNECTED as error:
            if self._connected and not isinstance(error, RuntimeError):
                raise
            return Unavailable("NOT_CONNECTED", explain(str(error)).cause)

    def _routed(self, message: Message) -> Command | Delivered | Rejected | Throttled:
        """The command by the message's topic, or what becomes of a message for which there is none."""
        target = NO_TARGET if self._routes is None else self._routes.target_of(message)
        if isinstance(target, Target):
            return Command(target, target.workflow_id)
        if isinstance(target, Record):
            return Delivered()
        return Throttled(target.kind, target.detail, scope="message") if self._leave_unroutable else target

    async def probe(self) -> Unavailable | Unclear | None:
        """Ask for the server's health and for the namespace, which needs the credentials and the namespace itself."""
        await self._link.refresh(at_once=True)
        service, unclear = self._link.service, None
        about = DescribeNamespaceRequest(namespace=self._requests.namespace)
        for ask in (service.check_health, partial(service.workflow_service.describe_namespace, about)):
            began_s = monotonic()
            try:
                await ask(retry=False, timeout=self._timeout)
            except RPCError as error:
                if timed_out(error):
                    await self._link.missed(began_s)
                if error.status not in _UNTOLD:
                    return Unavailable(error.status.name, error.message)
                unclear = Unclear(error.status.name, error.message)
            except _NOT_CONNECTED as error:
                return Unavailable("NOT_CONNECTED", explain(str(error)).cause)
            self._connected = True
        return unclear

    async def memory_s(self, namespace: str | None) -> float | Unavailable:
        """The namespace's retention. It counts from a workflow's close, so a delivery is known for at least as long."""
        request = DescribeNamespaceRequest(namespace=namespace or self._requests.namespace)
        try:
            service = self._link.service.workflow_service
            answer = await service.describe_namespace(request, retry=False, timeout=self._timeout)
        except RPCError as error:
            return Unavailable(error.status.name, error.message)
        except _NOT_CONNECTED as error:
            return Unavailable("NOT_CONNECTED", explain(str(error)).cause)
        return answer.config.workflow_execution_retention_ttl.ToTimedelta().total_seconds()

    async def _send(self, request: Request) -> str | None:
        """Make the call; return the run id where Temporal names one."""
        service, timeout = self._link.service.workflow_service, self._timeout
        match request:
            case StartWorkflowExecutionRequest():
                return (await service.start_workflow_execution(request, retry=False, timeout=timeout)).run_id
            case SignalWithStartWorkflowExecutionRequest():
                return (
                    await service.signal_with_start_workflow_execution(request, retry=False, timeout=timeout)
                ).run_id
            case SignalWorkflowExecutionRequest():
                await service.signal_workflow_execution(request, retry=False, timeout=timeout)
            case RequestCancelWorkflowExecutionRequest():
                await service.request_cancel_workflow_execution(request, retry=False, timeout=timeout)
            case TerminateWorkflowExecutionRequest():
                await service.terminate_workflow_execution(request, retry=False, timeout=timeout)
        return None

    async def _judge(self, error: RPCError, message: Message, command: Command, *, foreign_namespace: bool) -> Outcome:
        """Give an error its meaning for this message."""
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return await self._already_exists(error, message, command, foreign_namespace=foreign_namespace)
        if error.status is RPCStatusCode.NOT_FOUND and _COMPLETED in error.message:
            ended = command.target.operation in ("cancel_workflow", "terminate_workflow")
            return (
                Delivered(command.workflow_id, command.target.run_id) if ended else Failed("COMPLETED", error.message)
            )
        return outcome_of(error, foreign_namespace=foreign_namespace)

    async def _already_exists(
        self, error: RPCError, message: Message, command: Command, *, foreign_namespace: bool
    ) -> Outcome:
        """Find out whether the id was taken by an earlier delivery of this very message, or by another."""
        if command.target.operation == "cancel_workflow":
            return Delivered(command.workflow_id, command.target.run_id)
        holder = detail(error, WorkflowExecutionAlreadyStartedFailure) or WorkflowExecutionAlreadyStartedFailure()
        if holder.start_request_id == str(message.message_id):
            return Delivered(command.workflow_id, holder.run_id)
        strict = command.target.on_duplicate == "reject" or command.target.operation == "signal_with_start_workflow"
        if strict or was_tried_before(message):
            # After continue-as-new the running chain has another request id, and still our memo.
            service = self._link.service.workflow_service
            try:
                found = await self._repeats.look_back(service, message, command)
            except RPCError as failed:
                return unasked(failed, foreign_namespace=foreign_namespace)
            if isinstance(found, Delivered | Unknown):
                return found
        if strict:
            return Rejected(
                "DUPLICATE", f"workflow id {command.workflow_id!r} belongs to another start: {error.message}"
            )
        return Delivered(command.workflow_id, holder.run_id, duplicate=True)


def _action(target: Target) -> Action:
    """What the history keeps of it."""
    return Action(target.operation, target.workflow, target.namespace, target.task_queue)
