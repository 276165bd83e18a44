"""What Temporal's errors mean for a message, by what is known after the call.

| Temporal says                                                  | outcome                                             |
|----------------------------------------------------------------|-----------------------------------------------------|
| ALREADY_EXISTS                                                 | decided by the sink: ours, or a duplicate           |
| INVALID_ARGUMENT, OUT_OF_RANGE; message larger than the limit  | Rejected                                            |
| RESOURCE_EXHAUSTED, cause BUSY_WORKFLOW                        | Throttled, this message only                        |
| RESOURCE_EXHAUSTED otherwise                                   | Throttled                                           |
| NOT_FOUND otherwise than of the namespace                      | Failed: its start may be on its way                 |
| NOT_FOUND of the namespace, PERMISSION_DENIED, UNAUTHENTICATED | Unavailable; Failed if the message named another    |
| UNIMPLEMENTED, FAILED_PRECONDITION, UNAVAILABLE                | namespace than the connection's: that one is amiss  |
| no connection                                                  | Unavailable                                         |
| CANCELLED (the SDK's own time-out), DEADLINE_EXCEEDED          | Unknown, timed out                                  |
| ABORTED, INTERNAL, UNKNOWN, …                                  | Unknown                                             |
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message as ProtobufMessage
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure, ResourceExhaustedFailure
from temporalio.service import RPCError, RPCStatusCode

from outbox.sink import Failed, Outcome, Rejected, Throttled, Unavailable, Unknown
from workflows.link import timed_out

DetailT = TypeVar("DetailT", bound=ProtobufMessage)

_TOO_LARGE = "larger than max"
"""gRPC refuses a message over its limit under the same code as throttling, and without details."""
_BUSY = ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW


def outcome_of(error: RPCError, *, foreign_namespace: bool) -> Outcome:
    """Translate an RPC error. `foreign_namespace`: the message named another namespace than the connection's."""
    code, kind, text = error.status, error.status.name, error.message
    match code:
        case RPCStatusCode.INVALID_ARGUMENT | RPCStatusCode.OUT_OF_RANGE:
            return Rejected(kind, text)
        case RPCStatusCode.RESOURCE_EXHAUSTED:
            return _exhausted(error)
        case RPCStatusCode.NOT_FOUND if detail(error, NamespaceNotFoundFailure) is None:
            return Failed(kind, text)
        case (
            RPCStatusCode.NOT_FOUND
            | RPCStatusCode.PERMISSION_DENIED
            | RPCStatusCode.UNAUTHENTICATED
            | RPCStatusCode.UNIMPLEMENTED
            | RPCStatusCode.FAILED_PRECONDITION
            | RPCStatusCode.UNAVAILABLE
        ):
            return Failed(kind, text) if foreign_namespace else Unavailable(kind, text)
        case _:
            return Unknown(kind, text, timed_out=timed_out(error))


def detail(error: RPCError, kind: type[DetailT]) -> DetailT | None:
    """The error's detail of the given type, if the server sent one."""
    for packed in error.grpc_status.details:
        unpacked = kind()
        if packed.Unpack(unpacked):
            return unpacked
    return None


def _exhausted(error: RPCError) -> Rejected | Throttled:
    if _TOO_LARGE in error.message:
        return Rejected("PAYLOAD_TOO_LARGE", error.message)
    cause = detail(error, ResourceExhaustedFailure)
    if cause is None:
        return Throttled(error.status.name, error.message)
    name = ResourceExhaustedCause.Name(cause.cause).removeprefix("RESOURCE_EXHAUSTED_CAUSE_")
    return Throttled(name, error.message, scope="message" if cause.cause == _BUSY else "sink")
