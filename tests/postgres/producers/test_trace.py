"""A message carries the trace of the span in which it was enqueued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from outbox.producer import enqueue, enqueue_many, signal_workflow, start_workflow
from tests.postgres.producers.conftest import Rows
from tests.postgres.producers.libraries import Caller

OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def span() -> Iterator[str]:
    """A current span; gives its expected traceparent."""
    with TracerProvider().get_tracer("test").start_as_current_span("handler") as current:
        ids = current.get_span_context()
        yield f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"


@contextmanager
def within(current: context.Context) -> Iterator[None]:
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)


def test_current_span_is_stored_by_every_call_and_library(caller: Caller, rows: Rows) -> None:
    with span() as traceparent:
        ids = [
            caller.call(enqueue, "t"),
            caller.call(start_workflow, "W", "w"),
            caller.call(signal_workflow, "w", "s"),
            *caller.call(enqueue_many, [{"topic": "t"}, {"topic": "t", "headers": None}]),
        ]
    caller.commit()
    assert [rows()[i]["headers"] for i in ids] == [{"traceparent": traceparent}] * 5


def test_callers_headers_stay_beside_the_trace(plain: Caller, rows: Rows) -> None:
    given = {"tenant": "acme", "n": 1}
    with span() as traceparent:
        one = plain.call(enqueue, "t", headers=given)
        [another] = plain.call(enqueue_many, [{"topic": "t", "headers": given}])
    plain.commit()
    assert rows()[one]["headers"] == rows()[another]["headers"] == given | {"traceparent": traceparent}
    assert given == {"tenant": "acme", "n": 1}


@pytest.mark.parametrize("headers", [{"traceparent": OWN}, {"traceparent": OWN, "tracestate": "a=b"}])
def test_callers_own_trace_is_not_mixed_with_the_current_one(
    plain: Caller, rows: Rows, headers: dict[str, Any]
) -> None:
    with within(baggage.set_baggage("user", "7")), span():
        message_id = plain.call(enqueue, "t", headers=headers)
    plain.commit()
    assert rows()[message_id]["headers"] == headers


def test_trace_state_and_baggage_go_with_the_span(plain: Caller, rows: Rows) -> None:
    ids = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")]))
    current = trace.set_span_in_context(NonRecordingSpan(ids), baggage.set_baggage("user", "7"))
    with within(current):
        message_id = plain.call(enqueue, "t", headers={"baggage": "user=8"})
        another = plain.call(enqueue, "t")
    plain.commit()
    trace_headers = {"traceparent": f"00-{1:032x}-{2:016x}-01", "tracestate": "vendor=x"}
    assert rows()[message_id]["headers"] == trace_headers | {"baggage": "user=8"}
    assert rows()[another]["headers"] == trace_headers | {"baggage": "user=7"}


def test_without_a_span_there_are_no_headers(plain: Caller, rows: Rows) -> None:
    with within(baggage.set_baggage("user", "7")):
        message_id = plain.call(enqueue, "t")
    plain.commit()
    assert rows()[message_id]["headers"] == {}
