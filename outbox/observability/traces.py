"""Spans of deliveries, for OpenTelemetry: a subscriber of the event stream.

A message's span and the workflow that it starts have the same parent, the span in which the message was enqueued. So
what is sent to Temporal does not depend on tracing or on the number of tries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

import orjson

from outbox.model.events import Buried, Claimed, Completed, Event, Events, LeaseLost, Released, Retried, SettleRefused
from outbox.model.message import LeaseId, Message
from outbox.observability.otlp import Warn, exporting

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

Attributes = dict[str, str | bool | float]


@asynccontextmanager
async def tracing(events: Events, warn: Warn) -> AsyncIterator[None]:
    """Trace the deliveries in these events while the block runs, if the environment asks for it."""
    async with exporting("outbox", warn) as tracer:
        if tracer:
            events.subscribe(Spans(tracer))
        yield


class Spans:
    """One span `outbox.deliver` for each delivery of a message that carries a trace. Subscribe the object itself.

    It lasts from the enqueue to the sink's answer; for a repetition, or what was scheduled for later, from the claim.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._in_hand: dict[LeaseId, tuple[Context, int]] = {}
        """Of claimed messages that carry a trace: its context, and when they were claimed."""
        self._on: dict[type[Any], Callable[[Any], None]] = {
            Claimed: self._claimed,
            Completed: self._completed,
            Retried: self._retried,
            Buried: self._buried,
            Released: self._gone,
            LeaseLost: self._gone,
            SettleRefused: self._refused,
        }

    def __call__(self, event: Event) -> None:
        """Remember what is claimed, and record what became of it."""
        record = self._on.get(type(event))
        if record is not None:
            record(event)

    def _claimed(self, event: Claimed) -> None:
        now_ns = time_ns()
        for message in event.messages:
            context = _context(message.headers)
            if context is not None:
                self._in_hand[message.lease] = context, now_ns

    def _completed(self, event: Completed) -> None:
        if not self._in_hand:
            return
        now_ns, now_s = time_ns(), monotonic()
        for message, outcome, delivered_s, latency_s in event.settlements:
            more: Attributes = {
                "outbox.deliver_s": latency_s - message.age_s,
                "outbox.settle_s": now_s - delivered_s,
                "outbox.duplicate": outcome.duplicate,
            }
            if outcome.workflow_id is not None:
                more["outbox.workflow_id"] = outcome.workflow_id
            self._record(message, now_ns - int((now_s - delivered_s) * 1e9), "delivered", more)

    def _retried(self, event: Retried) -> None:
        self._record(event.message, time_ns(), "retried", {"error.type": event.outcome.kind})

    def _buried(self, event: Buried) -> None:
        self._record(event.message, time_ns(), event.reason, {"error.type": event.outcome.kind})

    def _gone(self, event: Released | LeaseLost) -> None:
        for message in event.messages:
            self._forget(message)

    def _refused(self, event: SettleRefused) -> None:
        self._forget(event.message)

    def _forget(self, message: Message) -> tuple[Context, int] | None:
        return self._in_hand.pop(message.lease, None)

    def _record(self, message: Message, end_ns: int, outcome: str, more: Attributes) -> None:
        known = self._forget(message)
        if known is None:
            return
        from opentelemetry.trace import SpanKind, StatusCode

        context, claimed_ns = known
        waited_ns = int(message.age_s * 1e9) if _is_first(message) else 0
        attributes: Attributes = {
            "messaging.system": "outbox",
            "messaging.operation.name": "deliver",
            "messaging.destination.name": message.topic,
            "messaging.message.id": str(message.message_id),
            "outbox.outcome": outcome,
            "outbox.deliveries": message.deliveries,
            "outbox.attempts": message.attempts,
            "outbox.claim_s": message.age_s,
        }
        span = self._tracer.start_span(
            "outbox.deliver", context, SpanKind.CONSUMER, attributes | more, start_time=claimed_ns - waited_ns
        )
        if "error.type" in more:
            span.set_status(StatusCode.ERROR, outcome)
        span.end(end_ns)


def _is_first(message: Message) -> bool:
    """Whether all its time since the enqueue belongs to this delivery."""
    return message.at_once and message.deliveries == 1 and not message.setbacks


def _context(headers: str) -> Context | None:
    """The producer's span, if the headers name one."""
    if '"traceparent"' not in headers:
        return None
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    try:
        given = orjson.loads(headers)
    except ValueError:  # PostgreSQL accepts it as JSON, and no other parser does
        return None
    carrier = {name: value for name, value in given.items() if isinstance(value, str)}
    context = TraceContextTextMapPropagator().extract(carrier)
    return context if get_current_span(context).get_span_context().is_valid else None
