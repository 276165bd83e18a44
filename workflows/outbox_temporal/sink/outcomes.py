"""What Temporal's errors mean for a message, by what is known after the call.

| the answer                                                       | outcome                                          |
|------------------------------------------------------------------|--------------------------------------------------|
| ALREADY_EXISTS                                                   | decided by the sink: ours, or a duplicate        |
| INVALID_ARGUMENT, OUT_OF_RANGE                                   | Rejected                                         |
| … for a limit or a state that changes (`_NOT_NOW`)               | Failed                                           |
| RESOURCE_EXHAUSTED, message larger than the limit                | Rejected                                         |
| RESOURCE_EXHAUSTED, cause BUSY_WORKFLOW; workflow not ready      | Throttled, this message only                     |
| RESOURCE_EXHAUSTED otherwise                                     | Throttled                                        |
| NOT_FOUND otherwise than of the namespace                        | Failed: its start may be on its way              |
| the namespace is missing, not active or in a wrong state; the    | Unavailable, *closed*                            |
| server does not support this client                              |                                                  |
| PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED,               | Unavailable, *refused*                           |
| FAILED_PRECONDITION                                              |                                                  |
| the two rows above, if the message names another namespace       | Failed                                           |
| UNAVAILABLE                                                      | Unavailable, *unanswered*                        |
| no connection                                                    | Unavailable, *unreached*                         |
| CANCELLED (the SDK's own time-out), DEADLINE_EXCEEDED            | Unknown, timed out                               |
| ABORTED, INTERNAL, UNKNOWN, …                                    | Unknown                                          |

A proxy between us and Temporal answers with an HTTP status instead, which the SDK wraps in some error of its own:

| HTTP status             | outcome                                                                                    |
|-------------------------|--------------------------------------------------------------------------------------------|
| 413                     | Rejected, PAYLOAD_TOO_LARGE                                                                |
| 429                     | Throttled                                                                                  |
| 408, 5xx, 2xx and 3xx   | Unavailable, *unanswered*: the call may have gone through                                  |
| 400, 401, 403, 404, 431 and all others | Unavailable, *refused*                                                      |
"""

from __future__ import annotations

import re
from typing import TypeVar

from google.protobuf.message import Message as ProtobufMessage
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import (
    ClientVersionNotSupportedFailure,
    NamespaceInvalidStateFailure,
    NamespaceNotActiveFailure,
    NamespaceNotFoundFailure,
    NamespaceUnavailableFailure,
    ResourceExhaustedFailure,
    ServerVersionNotSupportedFailure,
    WorkflowNotReadyFailure,
)
from temporalio.service import RPCError, RPCStatusCode

from outbox.model.sink import Failed, Outcome, Rejected, Throttled, Unavailable, Unknown
from outbox_temporal.sink.link import timed_out

DetailT = TypeVar("DetailT", bound=ProtobufMessage)

_TOO_LARGE = "larger than max"
"""gRPC refuses a message over its limit under the same code as throttling, and without details."""
_BUSY = ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW
_NOT_NOW = (
    "exceeded workflow execution limit for signal",  # of this run; its successor takes signals again
    "workflow history size exceeds limit",
    "workflow history count exceeds limit",
    "workflow mutable state size exceeds limit",
    "is not defined",  # a search attribute: it may be registered later
    "no mapping defined for search attribute",
    "search attributes from cluster metadata",  # the server could not read them
    "search attribute type",
    "unknown cluster",
    "is not supported",  # a policy or option: another version of the server may know it
    "not enabled",
    "is disabled",
)
"""Parts of INVALID_ARGUMENT texts, in lower case, that blame the state or the settings of the server.

Read in temporalio/temporal: service/history/consts, common/searchattribute/validator.go, service/frontend/errors.go.
"""
_CLOSED = (
    NamespaceNotFoundFailure,
    NamespaceInvalidStateFailure,
    NamespaceNotActiveFailure,
    NamespaceUnavailableFailure,
    ClientVersionNotSupportedFailure,
    ServerVersionNotSupportedFailure,
)
"""Details that speak of the namespace or of this worker's SDK, and so of every message to that namespace."""
_HTTP_STATUS = re.compile(r"(?:HTTP status code|receiving response with status):? (\d{3})")
"""How the SDK reports a proxy's answer: without a body, and with one."""
_PROXY_TOO_LARGE, _PROXY_BUSY, _PROXY_GAVE_UP = 413, 429, 408
_VALUE = re.compile(r"(value for search attribute .{1,1000}? of type \w+): .*", re.DOTALL)
"""How the server quotes the value of a search attribute that it refuses."""
_UNREACHED = ("connect error", "dns error", "ConnectError")
"""Parts of UNAVAILABLE texts by which the SDK says that it had no connection to send the request on."""


def outcome_of(error: RPCError, *, foreign_namespace: bool) -> Outcome:
    """Translate an RPC error. `foreign_namespace`: the message named another namespace than the connection's."""
    code, kind, text = error.status, error.status.name, _without_values(error.message)
    if proxy := _HTTP_STATUS.search(text):
        return _of_proxy(int(proxy[1]), text)
    if any(detail(error, closed) is not None for closed in _CLOSED):
        return Failed(kind, text) if foreign_namespace else Unavailable(kind, text, "closed")
    match code:
        case RPCStatusCode.INVALID_ARGUMENT | RPCStatusCode.OUT_OF_RANGE:
            return Failed(kind, text) if any(part in text.lower() for part in _NOT_NOW) else Rejected(kind, text)
        case RPCStatusCode.RESOURCE_EXHAUSTED:
            return _exhausted(error)
        case RPCStatusCode.NOT_FOUND:
            return Failed(kind, text)
        case RPCStatusCode.FAILED_PRECONDITION if detail(error, WorkflowNotReadyFailure) is not None:
            return Throttled(kind, text, scope="message")
        case (
            RPCStatusCode.PERMISSION_DENIED
            | RPCStatusCode.UNAUTHENTICATED
            | RPCStatusCode.UNIMPLEMENTED
            | RPCStatusCode.FAILED_PRECONDITION
        ):
            return Failed(kind, text) if foreign_namespace else Unavailable(kind, text, "refused")
        case RPCStatusCode.UNAVAILABLE:
            unreached = any(part in text for part in _UNREACHED)
            return Unavailable(kind, text, "unreached" if unreached else "unanswered")
        case _:
            return Unknown(kind, text, timed_out=timed_out(error))


def detail(error: RPCError, kind: type[DetailT]) -> DetailT | None:
    """The error's detail of the given type, if the server sent one."""
    for packed in error.grpc_status.details:
        unpacked = kind()
        if packed.Unpack(unpacked):
            return unpacked
    return None


def _without_values(text: str) -> str:
    """The server's text without the value of a search attribute, which is not for logs and dead letters."""
    return _VALUE.sub(r"\1 (its value is not shown)", text)


def _of_proxy(status: int, text: str) -> Outcome:
    kind = f"HTTP_{status}"
    if status == _PROXY_TOO_LARGE:
        return Rejected("PAYLOAD_TOO_LARGE", f"a proxy before Temporal refuses messages of this size: {text}")
    if status == _PROXY_BUSY:
        return Throttled(kind, text)
    answered = 400 <= status < 500 and status != _PROXY_GAVE_UP
    return Unavailable(kind, text, "refused" if answered else "unanswered")


def _exhausted(error: RPCError) -> Rejected | Throttled:
    if _TOO_LARGE in error.message:
        return Rejected("PAYLOAD_TOO_LARGE", error.message)
    cause = detail(error, ResourceExhaustedFailure)
    if cause is None:
        return Throttled(error.status.name, error.message)
    name = ResourceExhaustedCause.Name(cause.cause).removeprefix("RESOURCE_EXHAUSTED_CAUSE_")
    return Throttled(name, error.message, scope="message" if cause.cause == _BUSY else "sink")
