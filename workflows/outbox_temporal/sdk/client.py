"""The SDK's client, for all that is more than to deliver."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.runtime import Runtime

from outbox_temporal.sink.frontend import reach


async def connect(
    *,
    identity: str | None = None,
    lazy: bool = False,
    connect_timeout_s: float = 5.0,
    runtime: Runtime | None = None,
) -> Client:
    """Connect as `outbox_temporal.sink.frontend.reach` does, and raise what it raises."""
    found = await reach(identity=identity, lazy=lazy, connect_timeout_s=connect_timeout_s, runtime=runtime)
    return Client(found.service, namespace=found.namespace, data_converter=found.converter)
