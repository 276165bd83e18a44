"""The SDK's client, for all that is more than to deliver."""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from outbox_temporal.sink.connection_fault import TemporalUnreachable, unreachable
from outbox_temporal.sink.frontend import given, reach


async def connect(
    *,
    identity: str | None = None,
    lazy: bool = False,
    connect_timeout_s: float = 5.0,
    runtime: Runtime | None = None,
) -> Client:
    """Connect as `outbox_temporal.sink.frontend.reach` does. Raises ConfigurationError and TemporalUnreachable."""
    try:
        found = await reach(identity=identity, lazy=lazy, connect_timeout_s=connect_timeout_s, runtime=runtime)
    except RuntimeError as error:
        raise unreachable(error, given()["target_host"]) from error
    return Client(found.service, namespace=found.namespace, data_converter=found.converter)


async def require_namespace(client: Client) -> None:
    """Raise TemporalUnreachable if the client's namespace does not exist. Without the right to ask, it is not known."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=5))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            address = client.service_client.config.target_host
            raise TemporalUnreachable(
                f"Temporal at {address} has no namespace {client.namespace}: create it, or correct TEMPORAL_NAMESPACE"
            ) from error
