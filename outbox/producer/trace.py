"""The caller's trace, which a message carries in its headers. OpenTelemetry is used where the caller uses it."""

from __future__ import annotations

import sys
from collections.abc import Mapping


def current_trace() -> dict[str, str]:
    """Return what the global propagator writes for the current span (`traceparent` …); empty if there is no span."""
    if "opentelemetry.trace" not in sys.modules:  # then there can be no span
        return {}
    from opentelemetry import propagate, trace

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


def traced(headers: object, trace: Mapping[str, str]) -> object:
    """Return headers with the trace in them, or as they are if the caller gave a `traceparent`: no mixture of two."""
    if not trace or headers is None:
        return trace or None
    if not isinstance(headers, Mapping) or "traceparent" in headers:
        return headers
    return {**trace, **headers}
