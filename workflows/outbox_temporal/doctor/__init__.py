"""What `outbox doctor` says of Temporal: the settings, the routes, the way there, namespaces, and who polls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from outbox.model.errors import ConfigurationError
from outbox.model.finding import Check, Finding
from outbox.model.sink import Demand, SinkContext
from outbox_temporal.doctor import routing
from outbox_temporal.doctor import server as temporal
from outbox_temporal.doctor.server import Asked
from outbox_temporal.sdk.client import connect
from outbox_temporal.sink import settings
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.sink.frontend import profile

SETTINGS = Check("Temporal's settings", ("fault",))
CHECKS = (SETTINGS, *routing.CHECKS, *temporal.CHECKS)
_SHARE = 0.45
"""Of the time that a delivery may take, for each call."""


async def examine(context: SinkContext, demand: Demand | None) -> list[Finding]:
    """Examine everything; `demand` is None if the outbox cannot be read. Raises nothing."""
    faults = list(_faults())
    if faults:
        return [*faults, *(check.untried("Temporal's settings cannot be used") for check in CHECKS[1:])]
    chosen = settings.load()
    routes, of_routes = routing.examine(chosen, demand)
    timeout = timedelta(seconds=context.deliver_timeout_s * _SHARE)
    client = await connect(identity=context.identity, lazy=True, connect_timeout_s=timeout.total_seconds())
    asked = Asked(client, timeout)
    return [
        SETTINGS.good(f"{asked.address}, namespace {client.namespace}"),
        *of_routes,
        *routing.examine_allowed(Allowed(chosen, client.namespace), routes, demand),
        *await temporal.examine(asked, routing.wanted(routes, chosen.task_queue, client.namespace, demand), demand),
    ]


def _faults() -> Iterator[Finding]:
    """Of the adapter's variables, and of Temporal's own."""
    for read in (lambda: settings.load().converter(), profile):
        try:
            read()
        except ConfigurationError as error:
            yield from (SETTINGS.fault(fault, "outbox config  # where each comes from") for fault in error.faults)
