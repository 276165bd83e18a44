"""The doorbell. Sources ring it, the relay waits at it; many rings before one look are one ring.

It also judges the sources. A source is trusted from its subscription on. If a poll finds messages that it should have
announced, and it stays silent around them, it is deaf, even if its connection looks healthy. It is trusted again after
its rings have come through a few times. Pure apart from the waiting: the clock is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import anyio

from outbox.model.events import Emit, SourceDegraded, SourceRestored

_TIMER_S = 0.002
"""How much too early an event loop's timer may go off."""
_PROOFS = 3
"""Rings after which a source that had missed messages is trusted again."""


@dataclass(slots=True)
class _Subscription:
    """What is known of one subscribed source."""

    grace_s: float
    rung_s: float
    doubt_s: float | None = None
    """When messages were found that it had not announced yet."""


class Wakeup:
    """A coalescing doorbell for one waiter. A ring is a hint and is never lost: it ends the next wait at once."""

    def __init__(self, emit: Emit, clock: Callable[[], float] = monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._rung = anyio.Event()
        self._rung_by: str | None = None
        self._sources: dict[str, _Subscription] = {}
        self._proofs_left: dict[str, int] = {}
        """By degraded source: how many more rings until it is trusted again. Outlasts its subscriptions."""

    @property
    def has_trusted_source(self) -> bool:
        """Whether a source is subscribed and trusted to ring."""
        return any(name not in self._proofs_left for name in self._sources)

    def has(self, source: str) -> bool:
        """Say whether this source is subscribed."""
        return source in self._sources

    def trusts(self, source: str) -> bool:
        """Say whether this source is subscribed and has missed nothing that it has not made good since."""
        return source in self._sources and source not in self._proofs_left

    def ring(self, source: str) -> None:
        """Pass on a hint that really came. Synchronous, so it may be called from a driver's callback."""
        standing = self._sources.get(source)
        if standing is not None:
            standing.rung_s = self._clock()
            standing.doubt_s = None
            self._prove(source)
        self.nudge(source)

    def nudge(self, why: str) -> None:
        """Wake the waiter for a reason of this worker's own; proves nothing about any source."""
        self._rung_by = why
        self._rung.set()

    def subscribed(self, source: str, *, grace_s: float) -> None:
        """A source will ring from now on, within `grace_s` seconds of a commit; what came before must be looked for."""
        self._sources[source] = _Subscription(grace_s, self._clock())
        self.nudge(source)

    def unsubscribed(self, source: str) -> None:
        """A source will ring no more: look now, and from now on more often."""
        if self._sources.pop(source, None) is not None:
            self.nudge(source)

    def missed_notification(self) -> None:
        """A poll found new messages. Who has been silent for its grace, and stays silent for it, has missed them."""
        now_s = self._clock()
        for standing in self._sources.values():
            if standing.doubt_s is None and now_s - standing.rung_s > standing.grace_s:
                standing.doubt_s = now_s

    async def wait(self, timeout_s: float) -> str | None:
        """Return who rang, or None when `timeout_s` seconds passed in silence. Cancellation loses no ring."""
        with anyio.move_on_after(min(timeout_s, self._next_judgement_s())):
            await self._rung.wait()
        self._judge()
        rung_by, self._rung_by = self._rung_by, None
        if self._rung.is_set():
            self._rung = anyio.Event()
        return rung_by

    def _next_judgement_s(self) -> float:
        """Seconds until a doubt about a source becomes a verdict."""
        now_s = self._clock()
        ends = (s.doubt_s + s.grace_s for s in self._sources.values() if s.doubt_s is not None)
        return max(0.0, min(ends, default=float("inf")) - now_s) + _TIMER_S

    def _judge(self) -> None:
        now_s = self._clock()
        for name, standing in self._sources.items():
            if standing.doubt_s is not None and now_s - standing.doubt_s >= standing.grace_s:
                standing.doubt_s = None
                if name not in self._proofs_left:
                    self._emit(SourceDegraded(name, standing.grace_s))
                self._proofs_left[name] = _PROOFS

    def _prove(self, source: str) -> None:
        left = self._proofs_left.get(source, 0) - 1
        if left > 0:
            self._proofs_left[source] = left
        elif left == 0:
            del self._proofs_left[source]
            self._emit(SourceRestored(source))
