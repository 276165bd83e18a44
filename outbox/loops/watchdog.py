"""Which loop has promised to report, and by when: a dead man's switch for each loop of this worker.

A loop that waits says for how long at most. Loops write from their event loop; any thread may read, also while that
loop stands still. A promise costs one entry in a dictionary, so that even the claimer can afford one for each round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

import anyio

LOOP = "event loop"
_BEAT_S = 1.0
_STANDS_STILL_S = 5.0
"""How long the event loop may not turn. Garbage collection and a starved processor take a part of a second."""
_LAGS_KEPT = 60


class Watchdog:
    """The promises of one worker. All durations are seconds; the clock is a parameter and monotonic."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._due_s: dict[str, float] = {}
        self._lags_s: deque[float] = deque(maxlen=_LAGS_KEPT)
        self._next_beat_s = clock()

    def expect(self, who: str, within_s: float) -> None:
        """Promise that `who` will report again, in any way, within this many seconds."""
        self._due_s[who] = self._clock() + within_s

    def forget(self, who: str) -> None:
        """Release `who` from its promise: it has ended, or waits for a loop that has made one."""
        self._due_s.pop(who, None)

    def overdue_s(self) -> dict[str, float]:
        """By how many seconds each broken promise is overdue."""
        now_s = self._clock()
        return {who: now_s - due_s for who, due_s in self._due_s.copy().items() if now_s > due_s}

    @property
    def lag_s(self) -> float:
        """How late the event loop came at worst during the last minute, or is at this moment."""
        return max(self._clock() - self._next_beat_s, *self._lags_s.copy(), 0.0)

    async def beat(self) -> None:
        """Prove once a second that the event loop turns, until cancelled."""
        try:
            while True:
                self.expect(LOOP, _STANDS_STILL_S)
                self._next_beat_s = self._clock() + _BEAT_S
                await anyio.sleep(_BEAT_S)
                self._lags_s.append(max(0.0, self._clock() - self._next_beat_s))
        finally:
            self.forget(LOOP)
