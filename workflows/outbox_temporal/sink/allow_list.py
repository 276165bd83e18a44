"""What a worker may ask of Temporal. Producers have no credentials of their own: they use the worker's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from outbox.model.sink import Rejected
from outbox_temporal.sink.settings import TemporalSettings, environment_name
from outbox_temporal.target.route import Route
from outbox_temporal.target.target import SYSTEM_NAMESPACE, Command, Record, Target

SYSTEM_PREFIX = "temporal-sys-"
"""How Temporal names its own workflows, their ids and their task queues, in every namespace."""
_STARTS = ("start_workflow", "signal_with_start_workflow")


class RequestedAction(NamedTuple):
    """What is to be asked, as far as it is known; None is unknown, or the worker's own."""

    operation: str
    namespace: str | None = None
    task_queue: str | None = None
    workflow: str | None = None
    workflow_id: str | None = None


def wish_of(target: Target, workflow_id: str | None) -> RequestedAction:
    """What a target asks for."""
    return RequestedAction(target.operation, target.namespace, target.task_queue, target.workflow, workflow_id)


class Allowed:
    """The allow-list of one worker."""

    def __init__(self, chosen: TemporalSettings, namespace: str) -> None:
        """`namespace` is the worker's own: the one of its connection."""
        self._chosen = chosen
        self._own = namespace

    def refusal(self, command: Command) -> Rejected | None:
        """Why a command is not carried out, if it is not."""
        fault = self.fault(wish_of(command.target, command.workflow_id))
        return None if fault is None else Rejected("NOT_ALLOWED", fault)

    def fault_of_route(self, route: Route) -> str | None:
        """Why what a route says by itself is refused; what it fills in from messages is looked at with each of them."""
        if isinstance(route.target, Record):
            return None
        target = route.target.model_copy(update=dict.fromkeys(set(route.texts) - {"workflow_id"}))
        return self.fault(wish_of(target, None if "workflow_id" in route.texts else target.workflow_id))

    def described(self) -> str:
        """What is allowed, in a line."""
        chosen, parts = self._chosen, [f"namespace {self._own}"]
        if chosen.allowed_namespaces is not None:
            parts.append(f"and {', '.join(chosen.allowed_namespaces)}")
        for what in ("operations", "workflows", "task_queues"):
            names: list[str] | None = getattr(chosen, f"allowed_{what}")
            parts.append(f"{what.replace('_', ' ')} {'all' if names is None else ', '.join(names)}")
        return "; ".join(parts)

    def fault(self, wish: RequestedAction) -> str | None:
        """Why a request is refused, with the setting that would allow it."""
        chosen, namespace = self._chosen, wish.namespace or self._own
        if namespace == SYSTEM_NAMESPACE:
            return f"namespace {SYSTEM_NAMESPACE} is Temporal's own: no worker touches it"
        if namespace != self._own and not _matches(namespace, chosen.allowed_namespaces or ()):
            return _unnamed("namespace", namespace, "allowed_namespaces")
        if not _matches(wish.operation, chosen.allowed_operations):
            return _unnamed("operation", wish.operation, "allowed_operations")
        if wish.operation in _STARTS:
            if not _matches(wish.workflow, chosen.allowed_workflows):
                return _unnamed("workflow type", wish.workflow, "allowed_workflows")
            if not _matches(wish.task_queue, chosen.allowed_task_queues):
                return _unnamed("task queue", wish.task_queue, "allowed_task_queues")
        for name in (wish.workflow_id, wish.workflow, wish.task_queue):
            if name is not None and name.startswith(SYSTEM_PREFIX):
                return f"{name!r} is Temporal's own: no message may name what begins with {SYSTEM_PREFIX}"
        return None


def _matches(name: str | None, patterns: Sequence[str] | None) -> bool:
    """Whether a name is among the patterns, of which one may end in `*`; None allows everything."""
    if name is None or patterns is None or name in patterns:
        return True
    return any(pattern.endswith("*") and name.startswith(pattern[:-1]) for pattern in patterns)


def _unnamed(what: str, name: str | None, field: str) -> str:
    return f"{what} {name!r} is not allowed to this worker: add it to {environment_name(field)}, or correct the message"
