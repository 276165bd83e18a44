"""When to speak again of a fault that lasts: after half a minute, and then ever more rarely."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

FIRST_S = 30.0
"""A fault that is over sooner is no reason to wake a person."""
_RAREST_S = 600.0


class LastingFault:
    """One fault since `begin`. The clock is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """The fault begins now."""
        self._began_s = self._clock()
        self._next_s, self._pause_s = self._began_s + FIRST_S, FIRST_S

    def due(self) -> float:
        """For how many seconds it has lasted, if it is time to say so; else 0."""
        now_s = self._clock()
        if now_s < self._next_s:
            return 0.0
        self._pause_s = min(2 * self._pause_s, _RAREST_S)
        self._next_s = now_s + self._pause_s
        return now_s - self._began_s
