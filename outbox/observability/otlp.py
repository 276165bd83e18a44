"""Where spans go, as OpenTelemetry's own variables say. It is loaded only if they ask for it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_FLUSH_S = 3.0
"""How long the end of a process waits for a collector to take the last spans."""

Warn = Callable[[Iterable[str]], None]


def exporters() -> list[str]:
    """The names of the exporters that are asked for: none without a variable that names one, or an endpoint."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    default = "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none"
    chosen = [name.strip() for name in (os.environ.get("OTEL_TRACES_EXPORTER") or default).split(",")]
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    otlp = f"otlp_proto_{protocol.partition('/')[0]}"
    return [otlp if name == "otlp" else name for name in chosen if name not in ("", "none")]


@asynccontextmanager
async def exporting(service: str, warn: Warn) -> AsyncIterator[Tracer | None]:
    """A tracer that exports its spans. None if the environment does not ask for it, or with a warning if it fails.

    `service` is the service's name where the environment has none. No work waits for a collector, but the end does for
    a moment.
    """
    provider = _provider(service, warn)
    try:
        yield provider.get_tracer("temporal-outbox") if provider else None
    finally:
        if provider:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_FLUSH_S):
                await to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


def _provider(service: str, warn: Warn) -> TracerProvider | None:
    names = exporters()
    if not names:
        return None
    try:
        return _made(service, names)
    except ImportError as error:
        warn([f"OTEL_… asks for traces, which need an extra: pip install 'temporal-outbox[opentelemetry]' ({error})"])
    except Exception as error:  # noqa: BLE001 - an exporter may raise anything; delivery goes on without traces
        warn([f"OTEL_… asks for traces, which cannot be exported: {error}"])
    return None


def _made(service: str, names: list[str]) -> TracerProvider:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry.util.re").addFilter(_without_values)
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        found = tuple(entry_points(group="opentelemetry_traces_exporter", name=name))
        if not found:
            raise ImportError(f"there is no exporter {name}")
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    return provider


def _without_values(record: logging.LogRecord) -> bool:
    """Of headers that it cannot read it would log the whole text, credentials and all."""
    record.args = ()
    return True
