"""The parts of Temporal's requests that a message or its target gives, each as Temporal's own type."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import Header, Payload, SearchAttributes
from temporalio.api.common.v1 import RetryPolicy as RetryPolicyRequest

from outbox.model.message import Message
from outbox_temporal.target.json_text import MOST_PARTS, Uncut, members
from outbox_temporal.target.target import RetryPolicy

JSON = {"encoding": b"json/plain"}
"""The metadata of a payload that is JSON."""
_TRACE_KEY = "_tracer-data"
"""The header field of the SDK's OpenTelemetry interceptors (temporalio.contrib.opentelemetry)."""
_TRACE_FIELDS = ("traceparent", "tracestate", "baggage")


class InvalidMessage(ValueError):
    """A message that cannot be sent as it is, in any state of the server."""

    kind: ClassVar[str] = "INVALID_PAYLOAD"


class InvalidHeaders(InvalidMessage):
    """Headers with which no workflow could start."""

    kind = "INVALID_HEADERS"


def header(message: Message) -> Header:
    """The message's headers as Temporal's: the trace where the SDK's interceptors look for it, the rest by name.

    Raises InvalidHeaders: an interceptor that meets a trace of another type fails the workflow's task again and again.
    """
    if message.headers == "{}":
        return Header()
    try:
        headers = members(message.headers, MOST_PARTS)
    except Uncut as error:
        raise InvalidHeaders(f"headers: the text {error}") from None
    trace = {name: headers.pop(name) for name in _TRACE_FIELDS if name in headers}
    fields = {name: Payload(metadata=JSON, data=text.encode()) for name, text in headers.items()}
    if trace:
        for name, text in trace.items():
            if not text.startswith('"'):
                raise InvalidHeaders(f"headers.{name} must be a string")
        data = ",".join(f'"{name}":{text}' for name, text in trace.items())
        fields[_TRACE_KEY] = Payload(metadata=JSON, data=f"{{{data}}}".encode())
    return Header(fields=fields)


def search_attributes(attributes: dict[str, Any]) -> SearchAttributes:
    """Values as JSON; {"type": …, "value": …} also says the type, without which the server takes the registered one."""
    fields = {}
    for name, given in attributes.items():
        typed = isinstance(given, dict) and given.keys() == {"type", "value"}
        payload = json_payload(given["value"] if typed else given)
        if typed:
            payload.metadata["type"] = str(given["type"]).encode()
        fields[name] = payload
    return SearchAttributes(indexed_fields=fields)


def retry_policy(policy: RetryPolicy) -> RetryPolicyRequest:
    """A workflow's retry policy. What it leaves out is the server's default."""
    request = RetryPolicyRequest(
        backoff_coefficient=policy.backoff_coefficient or 0.0,
        maximum_attempts=policy.maximum_attempts or 0,
        non_retryable_error_types=policy.non_retryable_error_types,
    )
    if policy.initial_interval_s is not None:
        request.initial_interval.CopyFrom(duration(policy.initial_interval_s))
    if policy.maximum_interval_s is not None:
        request.maximum_interval.CopyFrom(duration(policy.maximum_interval_s))
    return request


def duration(seconds: float) -> Duration:
    """Seconds, to the microsecond."""
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e6) * 1000)


def json_payload(value: object) -> Payload:
    """A value as the SDKs' default converter encodes it; an orjson.Fragment is a value's text, which stays as it is."""
    return Payload(metadata=JSON, data=orjson.dumps(value))
