"""Where messages that carry only a topic go: a file of routes from topics to targets.

The file is checked as a whole, by the rules of `target.py`, before the first message; what is left to find
out for each message is whether its fields fill the placeholders.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from outbox.model.errors import ConfigurationError
from outbox.model.message import Message
from outbox.model.sink import Rejected
from outbox_temporal.target.check import checked
from outbox_temporal.target.route import Route
from outbox_temporal.target.target import Record, Target
from outbox_temporal.target.templates import Unfilled
from outbox_temporal.target.toml_file import read

UNROUTABLE = "UNROUTABLE"


class Routes:
    """The routes of one file. Immutable. The exact topic wins, then the longest prefix."""

    def __init__(self, path: Path, routes: Iterable[Route]) -> None:
        self.path = path
        self.all = tuple(routes)
        self._exact = {route.topic: route for route in self.all if not route.topic.endswith("*")}
        self._prefixes = {route.topic[:-1]: route for route in self.all if route.topic.endswith("*")}

    @classmethod
    def load(cls, path: Path) -> Routes:
        """Read a file. Raises ConfigurationError with a line for every fault in it."""
        return cls(path, checked(read(path)))

    def target_of(self, message: Message) -> Target | Record | Rejected:
        """The target for a message's topic, or why there is none."""
        route = self.match(message.topic)
        if route is None:
            return Rejected(UNROUTABLE, f"no route in {self.path} matches the topic {message.topic!r}")
        try:
            return route.target_of(message)
        except Unfilled as error:
            return Rejected(UNROUTABLE, f"route {route.topic!r} ({self.path}:{route.line}): {error}")

    def without_task_queue(self) -> list[Route]:
        """The routes that start a workflow and name no task queue."""
        starts = ("start_workflow", "signal_with_start_workflow")
        targets = [(route, route.target) for route in self.all]
        return [
            route
            for route, target in targets
            if isinstance(target, Target) and target.operation in starts and not target.task_queue
        ]

    def require_task_queues(self, default: str | None) -> None:
        """Raise ConfigurationError for the routes that name no task queue and have no default."""
        if default is None and (lacking := self.without_task_queue()):
            raise ConfigurationError(
                *(
                    f"{self.path}:{route.line}: route {route.topic!r} has no task_queue: "
                    "name one there, in [defaults] or as OUTBOX_TEMPORAL_TASK_QUEUE"
                    for route in lacking
                )
            )

    def match(self, topic: str) -> Route | None:
        """The route for a topic."""
        if topic in self._exact:
            return self._exact[topic]
        stem = topic
        while stem:
            stem = stem[: stem.rfind(".", 0, -1) + 1]  # at last the empty one, of the route "*"
            if stem in self._prefixes:
                return self._prefixes[stem]
        return None
