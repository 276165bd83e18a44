"""Waiting for events of the core, instead of sleeping or polling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import anyio

from outbox.model.events import Event, Events

E = TypeVar("E")
TIMEOUT_S = 15.0


class EventLog:
    """Keeps every event of one event loop, in order, and wakes the tests that wait for one.

    A subscriber like any other: `Events(log)`, `events.subscribe(log)` or `EventLog(events)`.
    """

    def __init__(self, events: Events | None = None) -> None:
        self.events: list[Event] = []
        self._changed: set[anyio.Event] = set()
        if events is not None:
            events.subscribe(self)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        for changed in self._changed:
            changed.set()

    def __len__(self) -> int:
        """How many events there are; take it as a mark for `after`."""
        return len(self.events)

    def of(self, kind: type[E], *, after: int = 0) -> list[E]:
        """Every event of this type, without the first `after` events of the log."""
        return [event for event in self.events[after:] if isinstance(event, kind)]

    async def wait_for(
        self,
        kind: type[E],
        predicate: Callable[[E], bool] = lambda _: True,
        *,
        after: int = 0,
        timeout_s: float = TIMEOUT_S,
    ) -> E:
        """The first such event, at once if it is in the log already."""

        def first() -> E | None:
            return next((event for event in self.of(kind, after=after) if predicate(event)), None)

        return await self.wait_until(first, what=kind.__name__, timeout_s=timeout_s)

    async def wait_until(
        self, state: Callable[[], E | None], *, what: str = "the condition", timeout_s: float = TIMEOUT_S
    ) -> E:
        """Evaluate `condition` now and after every event until its answer is true; that is the result."""
        with anyio.move_on_after(timeout_s):
            while True:
                changed = anyio.Event()
                if answer := state():
                    return answer
                self._changed.add(changed)
                try:
                    await changed.wait()
                finally:
                    self._changed.discard(changed)
        seen = dict(Counter(type(event).__name__ for event in self.events))
        raise AssertionError(
            f"{what} did not come within {timeout_s} s; seen: {seen}; at last: {[str(e)[:300] for e in self.events[-3:]]}"
        )
