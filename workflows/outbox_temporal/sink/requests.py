"""Builds Temporal's requests from messages.

They are built raw, not through the SDK's client. Only then can the request id be the message id, and the payload's
bytes pass untouched.
"""

from __future__ import annotations

from operator import itemgetter
from sys import getsizeof
from typing import Any, Literal

import orjson
from temporalio.api.common.v1 import Memo, Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.sdk.v1 import UserMetadata
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import OnConflictOptions
from temporalio.api.workflowservice.v1 import (
    RequestCancelWorkflowExecutionRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)
from temporalio.common import RawValue
from temporalio.converter import DataConverter, WorkflowSerializationContext

from outbox.model.message import Message
from outbox_temporal.sink.payloads import (
    JSON,
    InvalidMessage,
    duration,
    header,
    json_payload,
    retry_policy,
    search_attributes,
)
from outbox_temporal.target.byte_cache import ByteCache
from outbox_temporal.target.json_text import MOST_PARTS, Uncut, elements, members
from outbox_temporal.target.target import MEMO_KEY, Command, Target

_START_BYTES = 4096
"""What a start has in memory beside its texts."""
_TREES = {"memo", "search_attributes", "retry_policy"}
_OWN = {"workflow_id", "summary", "details"}
_LIKENESS = itemgetter(*(name for name in Target.model_fields if name not in {*_OWN, *_TREES}))
"""What two targets without trees must have in common for their starts to differ in `_OWN` only."""

_REUSE = {
    "reject_duplicate": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
    "allow_duplicate": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    "allow_duplicate_failed_only": WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
}
_CONFLICT = {
    "fail": WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
    "use_existing": WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
    "terminate_existing": WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
}


_CONFLICT_OF_SIGNALS = _CONFLICT | {"fail": WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_UNSPECIFIED}


class NoTaskQueue(ValueError):
    """No task queue: the message names none, and this worker has no default."""


class InvalidPayload(InvalidMessage):
    """The payload does not have the shape that its target announces."""


Request = (
    StartWorkflowExecutionRequest
    | SignalWithStartWorkflowExecutionRequest
    | SignalWorkflowExecutionRequest
    | RequestCancelWorkflowExecutionRequest
    | TerminateWorkflowExecutionRequest
)


class Requests:
    """Builds requests for one connection."""

    def __init__(self, *, namespace: str, identity: str, task_queue: str | None, converter: DataConverter) -> None:
        self.namespace = namespace
        self._identity = identity
        self._task_queue = task_queue
        self._converter = converter
        self._untouched = converter.payload_codec is None and converter.external_storage is None
        self._starts: ByteCache[object, StartWorkflowExecutionRequest] = ByteCache()

    async def build(self, message: Message, command: Command) -> Request:
        """The request that the command names. It raises what the user's codec raises."""
        match command.target.operation:
            case "start_workflow":
                return await self.start(message, command)
            case "signal_with_start_workflow":
                return await self.signal_with_start(message, command)
            case "signal_workflow":
                return await self.signal(message, command)
            case "cancel_workflow":
                return self.cancel(message, command)
            case "terminate_workflow":
                return self.terminate(message, command)

    async def start(self, message: Message, command: Command) -> StartWorkflowExecutionRequest:
        """A start, with the message id as request id and in the memo."""
        request = StartWorkflowExecutionRequest()
        target, workflow_id = command
        request.CopyFrom(self._start_like(target))
        message_id = str(message.message_id)
        request.workflow_id, request.request_id = workflow_id, message_id
        if target.memo:
            request.memo.CopyFrom(await self._memo(message_id, command, request.namespace))
        else:
            request.memo.fields[MEMO_KEY].data = orjson.dumps(message_id)
        if message.headers != "{}":
            request.header.CopyFrom(header(message))
        if target.summary or target.details:
            request.user_metadata.CopyFrom(await self._user_metadata(command, request.namespace))
        if request.input.payloads and message.payload is not None:
            request.input.payloads[0].data = message.payload.encode()
        else:
            request.ClearField("input")
            arguments = await self._arguments(message, workflow_id, request.namespace, target.arguments)
            if arguments is not None:
                request.input.CopyFrom(arguments)
        return request

    async def signal(self, message: Message, command: Command) -> SignalWorkflowExecutionRequest:
        """A signal; Temporal drops a repeat of its request id within one run."""
        target, workflow_id = command
        namespace = target.namespace or self.namespace
        return SignalWorkflowExecutionRequest(
            signal_name=target.signal or "",
            input=await self._arguments(message, workflow_id, namespace, target.arguments),
            header=header(message),
            **self._execution_fields(message, command),
        )

    async def signal_with_start(self, message: Message, command: Command) -> SignalWithStartWorkflowExecutionRequest:
        """A signal that starts its workflow first if need be.

        The server signals a running workflow unless it is to be terminated; it does not accept the policy `fail` here.
        """
        target, workflow_id = command
        namespace = target.namespace or self.namespace
        start, signal = await self._both_arguments(message, command, namespace)
        return SignalWithStartWorkflowExecutionRequest(
            input=start,
            signal_name=target.signal or "",
            signal_input=signal,
            workflow_id=workflow_id,
            request_id=str(message.message_id),
            memo=await self._memo(str(message.message_id), command, namespace),
            header=None if message.headers == "{}" else header(message),
            user_metadata=await self._user_metadata(command, namespace),
            workflow_id_conflict_policy=_CONFLICT_OF_SIGNALS[target.id_conflict_policy],
            **self._start_fields(target, namespace),
        )

    def cancel(self, message: Message, command: Command) -> RequestCancelWorkflowExecutionRequest:
        """A request to cancel."""
        return RequestCancelWorkflowExecutionRequest(
            reason=command.target.reason or "", **self._execution_fields(message, command)
        )

    def terminate(self, message: Message, command: Command) -> TerminateWorkflowExecutionRequest:
        """A termination. It has no request id; `outbox_temporal.sink.redelivery` recognises it by its identity."""
        fields = self._execution_fields(message, command)
        del fields["request_id"]
        return TerminateWorkflowExecutionRequest(reason=command.target.reason or "", **fields)

    def _execution_fields(self, message: Message, command: Command) -> dict[str, Any]:
        """What every command to an existing workflow carries."""
        target, workflow_id = command
        return {
            "namespace": target.namespace or self.namespace,
            "workflow_execution": WorkflowExecution(workflow_id=workflow_id, run_id=target.run_id or ""),
            # A termination has no request id: its history names the message by the identity alone.
            "identity": f"{self._identity} {message.message_id}",
            "request_id": str(message.message_id),
        }

    def _start_like(self, target: Target) -> StartWorkflowExecutionRequest:
        """The start of every target that differs from this one in `_OWN` only; not to be changed.

        Copying it costs a third of building it. Where a codec has no work, it has room for one argument.
        """
        fields = target.__dict__
        key = None if target.memo or target.search_attributes or target.retry_policy else _LIKENESS(fields)
        known = self._starts.get(key)
        if known is None:
            known = self._start_of(target)
            if key is not None:
                self._starts.put(key, known, _START_BYTES + 2 * known.ByteSize() + sum(map(getsizeof, key)))
        return known

    def _start_of(self, target: Target) -> StartWorkflowExecutionRequest:
        """A start with everything that is the target's own, and with room for what is the message's."""
        namespace = target.namespace or self.namespace
        one = self._untouched and target.arguments in (None, "one")
        use_existing = target.id_conflict_policy == "use_existing"
        return StartWorkflowExecutionRequest(
            workflow_id_conflict_policy=_CONFLICT[target.id_conflict_policy],
            input=Payloads(payloads=[Payload(metadata=JSON)]) if one else None,
            memo=Memo(fields={MEMO_KEY: Payload(metadata=JSON)}),
            # A repeat is recognised also after that run has closed.
            on_conflict_options=OnConflictOptions(attach_request_id=True) if use_existing else None,
            **self._start_fields(target, namespace),
        )

    def _start_fields(self, target: Target, namespace: str) -> dict[str, Any]:
        """What both kinds of start carry for their target. Absent fields stay unset: Temporal has its own defaults."""
        task_queue = target.task_queue or self._task_queue
        if not task_queue:
            raise NoTaskQueue("no task queue: name one with task_queue, or set OUTBOX_TEMPORAL_TASK_QUEUE")
        fields: dict[str, Any] = {
            "namespace": namespace,
            "workflow_type": WorkflowType(name=target.workflow or ""),
            "task_queue": TaskQueue(name=task_queue),
            "identity": self._identity,
            "workflow_id_reuse_policy": _REUSE[target.id_reuse_policy],
        }
        durations = {
            "workflow_execution_timeout": target.execution_timeout_s,
            "workflow_run_timeout": target.run_timeout_s,
            "workflow_task_timeout": target.task_timeout_s,
            "workflow_start_delay": target.start_delay_s,
        }
        fields |= {name: duration(seconds) for name, seconds in durations.items() if seconds is not None}
        if target.retry_policy is not None:
            fields["retry_policy"] = retry_policy(target.retry_policy)
        if target.search_attributes:
            fields["search_attributes"] = search_attributes(target.search_attributes)
        return fields

    async def _both_arguments(
        self, message: Message, command: Command, namespace: str
    ) -> tuple[Payloads | None, Payloads | None]:
        """The start's and the signal's arguments: the payload holds both, unless the target says how each takes it."""
        target, workflow_id = command
        if target.arguments is not None or target.signal_arguments is not None:
            return (
                await self._arguments(message, workflow_id, namespace, target.arguments),
                await self._arguments(message, workflow_id, namespace, target.signal_arguments),
            )
        start, signal = _both(message.payload)
        return await self._many(start, workflow_id, namespace), await self._many(signal, workflow_id, namespace)

    async def _arguments(
        self, message: Message, workflow_id: str, namespace: str, shape: Literal["none", "one", "many"] | None
    ) -> Payloads | None:
        """The payload as arguments: one argument's bytes pass as the producer wrote them."""
        if shape == "none" or message.payload is None:
            return None
        if shape == "many":
            return await self._many(message.payload, workflow_id, namespace)
        return await self._encoded([Payload(metadata=JSON, data=message.payload.encode())], workflow_id, namespace)

    async def _many(self, array: str, workflow_id: str, namespace: str) -> Payloads | None:
        """The elements of an array, each an argument with the producer's bytes."""
        try:
            texts = elements(array, MOST_PARTS)
        except Uncut as error:
            raise InvalidPayload(f"several arguments must be a JSON array: the payload {error}") from None
        payloads = [Payload(metadata=JSON, data=text.encode()) for text in texts]
        return await self._encoded(payloads, workflow_id, namespace) if payloads else None

    async def _memo(self, message_id: str, command: Command, namespace: str) -> Memo:
        memo = command.target.memo
        fields = {MEMO_KEY: json_payload(message_id)}
        if memo:
            payloads = [json_payload(value) for value in memo.values()]
            encoded = await self._encoded(payloads, command.workflow_id, namespace)
            fields |= dict(zip(memo, encoded.payloads, strict=True))
        return Memo(fields=fields)

    async def _user_metadata(self, command: Command, namespace: str) -> UserMetadata:
        """What Temporal's UI shows of the workflow, through the codec like everything that the team has written."""
        given = {"summary": command.target.summary, "details": command.target.details}
        payloads = {name: json_payload(text) for name, text in given.items() if text}
        encoded = await self._encoded(list(payloads.values()), command.workflow_id, namespace)
        return UserMetadata(**dict(zip(payloads, encoded.payloads, strict=True)))

    async def _encoded(self, payloads: list[Payload], workflow_id: str, namespace: str) -> Payloads:
        """Payloads through the team's codec, if it has one; the payload converter leaves raw values alone."""
        if self._untouched:
            return Payloads(payloads=payloads)
        context = WorkflowSerializationContext(namespace=namespace, workflow_id=workflow_id)
        encoded = await self._converter.with_context(context).encode([RawValue(payload) for payload in payloads])
        return Payloads(payloads=encoded)


def _both(payload: str | None) -> tuple[str, str]:
    """The arrays of the start's and the signal's arguments, as they stand in a payload that holds both."""
    try:
        both = members(payload or "null")
    except Uncut:
        both = {"": ""}
    if not both.keys() <= {"args", "signal_args"}:
        raise InvalidPayload('the payload of signal_with_start_workflow is {"args": […], "signal_args": […]}')
    return both.get("args", "[]"), both.get("signal_args", "[]")
