"""Examines the routes: the file, and whether what waits finds its way; and which task queues all that leads to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from outbox.model.errors import ConfigurationError
from outbox.model.finding import Check, Finding
from outbox.model.sink import Demand
from outbox_temporal.sink.allow_list import Allowed, RequestedAction
from outbox_temporal.sink.settings import TemporalSettings
from outbox_temporal.target.check import warnings
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Target

ROUTES = Check("routes", ("warning", "fault"))
ALLOWED = Check("allow-list", ("warning", "fault"))
CHECKS = (ROUTES, ALLOWED)
_STARTS = ("start_workflow", "signal_with_start_workflow")
_MOST_TOPICS = 5
_ALLOW = "OUTBOX_TEMPORAL_ALLOWED_…  # or correct the route, or who enqueues this"


class Queue(NamedTuple):
    """A task queue in its namespace."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the routes, the waiting messages and those of the last hour need of Temporal."""

    namespaces: tuple[str, ...]
    """First the connection's."""
    queues: tuple[Queue, ...]
    queueless: bool
    """Whether messages wait that start something and name no task queue, and nothing names one for them."""


def examine(chosen: TemporalSettings, demand: Demand | None) -> tuple[Routes | None, list[Finding]]:
    """The routes, if there are any that can be used, and what is to be said of them."""
    path = chosen.routes_file()
    routes = None
    try:
        if path is not None:
            routes = Routes.load(path)
            routes.require_task_queues(chosen.task_queue)
    except ConfigurationError as error:
        return routes, [ROUTES.fault(fault, f"outbox routes check --file {path}") for fault in error.faults]
    found = [
        ROUTES.warning(f"{path}:{route.line}: route {route.topic!r}: {doubt}", "take it out of the route")
        for route in (routes.all if routes else ())
        for doubt in warnings(route)
    ]
    if demand is None:
        return routes, [*found, ROUTES.untried("which topics wait is not known without the outbox")]
    found += _astray(routes, chosen, {way.topic for way in demand.ways if way.topic is not None})
    described = f"{len(routes.all)} in {path}, and every waiting topic has one" if routes else None
    return routes, found or [ROUTES.good(described or "none, and no message waits for one")]


def examine_allowed(allowed: Allowed, routes: Routes | None, demand: Demand | None) -> list[Finding]:
    """Whether this worker may do what the routes say and what the waiting messages ask for."""
    found = (
        [
            ALLOWED.warning(f"{routes.path}:{route.line}: route {route.topic!r}: {fault}", _ALLOW)
            for route in routes.all
            if (fault := allowed.fault_of_route(route)) is not None
        ]
        if routes
        else []
    )
    if demand is None:
        return [*found, ALLOWED.untried("what the waiting messages ask for is not known without the outbox")]
    ways = [
        RequestedAction(way.operation, way.namespace, way.task_queue)
        for way in demand.ways
        if way.operation is not None
    ]
    faults = sorted({fault for way in ways if (fault := allowed.fault(way)) is not None})
    found += [ALLOWED.fault(f"messages wait that would become dead letters: {fault}", _ALLOW) for fault in faults]
    return found or [ALLOWED.good(allowed.described())]


def _astray(routes: Routes | None, chosen: TemporalSettings, topics: Iterable[str]) -> list[Finding]:
    """What to say of topics that wait and have no route."""
    astray = sorted(topic for topic in topics if routes is None or routes.match(topic) is None)
    if not astray:
        return []
    more = f" and {len(astray) - _MOST_TOPICS} more" if len(astray) > _MOST_TOPICS else ""
    detail = f"messages wait that have no target and no route: {', '.join(astray[:_MOST_TOPICS])}{more}"
    cure = f'[[route]]\ntopic = "{astray[0]}"  # in {routes.path if routes else "outbox.toml"}, with what becomes of it'
    if chosen.unroutable == "leave" and routes is not None:
        return [ROUTES.warning(f"{detail}; they are left waiting (OUTBOX_UNROUTABLE)", cure)]
    return [ROUTES.fault(f"{detail}; a worker would make them dead letters", cure)]


def wanted(routes: Routes | None, default: str | None, namespace: str, demand: Demand | None) -> Wanted:
    """What will be needed, as far as it is known without a message's payload. `namespace` is the connection's."""
    ways = demand.ways if demand else ()
    starts = [way for way in ways if way.operation in _STARTS]
    targets = [
        route.target
        for route in (routes.all if routes else ())
        if isinstance(route.target, Target) and not {"task_queue", "namespace"} & set(route.texts)
    ]
    named: set[tuple[str | None, str | None]] = {(None, default)}
    named |= {(way.namespace, way.task_queue or default) for way in starts}
    named |= {(target.namespace, target.task_queue or default) for target in targets if target.operation in _STARTS}
    recent = demand.recent if demand else ()
    named |= set(recent)
    others = {way.namespace for way in ways} | {space for space, _ in recent} | {target.namespace for target in targets}
    return Wanted(
        namespaces=(namespace, *sorted(name for name in others if name not in (None, namespace))),
        queues=tuple(sorted(Queue(space or namespace, queue) for space, queue in named if queue)),
        queueless=default is None and any(way.task_queue is None for way in starts),
    )
