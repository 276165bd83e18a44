"""The relay's limits: none until the sink throttles or times out, then additive increase and multiplicative decrease.

Throttling limits deliveries a second (`Pace`), time-outs limit deliveries in flight (`ConcurrencyLimit`). Pure: time
is a parameter, nothing waits here.
"""

from __future__ import annotations

from dataclasses import dataclass

_HOLD_S = 1.0
"""One cut a second at most: answers to deliveries that are already in flight bring no news."""
_DECREASE = 0.7
_GROWTH = 0.1
"""Each second without throttling adds this share of the rate that last proved too high."""
_FIRST = 20.0
"""The assumed rate of a sink that throttles before it has taken any message, in messages a second."""
_SLOWEST = 0.5
"""Messages a second. A sink that refuses everything gets one message every two seconds."""
_FREE_AT = 3.0
"""At this multiple of the rate that last proved too high, the limit is lifted."""


@dataclass(slots=True)
class Pace:
    """Spaces deliveries out while the sink throttles. All times are monotonic seconds."""

    rate: float | None = None
    """Messages a second that are allowed now; None means no limit."""
    accepted: int = 0
    """Deliveries that the sink took so far. The deliverer counts them."""
    _accepted_rate: float = 0.0
    _ticked_s: float = 0.0
    _ticked_at: int = 0
    _too_high: float = 0.0
    _changed_s: float = 0.0
    _next_s: float = 0.0

    def tick(self, now_s: float) -> None:
        """Note how many deliveries a second the sink has taken since the last tick."""
        if now_s > self._ticked_s:
            self._accepted_rate = (self.accepted - self._ticked_at) / (now_s - self._ticked_s)
        self._ticked_s, self._ticked_at = now_s, self.accepted

    def reserve(self, now_s: float) -> float:
        """Take the next free moment and return how many seconds it lies ahead; 0 means go."""
        if self.rate is None:
            return 0.0
        at_s = max(self._next_s, now_s)
        self._next_s = at_s + 1.0 / self.rate
        return at_s - now_s

    def slow_down(self, now_s: float) -> bool:
        """The sink throttled: go below the limit, and not above what it really took. Return whether it was cut."""
        if self.rate is not None and now_s - self._changed_s < _HOLD_S:
            return False
        taken = max(self._accepted_rate, (self.accepted - self._ticked_at) / max(now_s - self._ticked_s, _HOLD_S))
        if self.rate is None:
            self._too_high = taken or _FIRST
        else:
            self._too_high = max(min(self.rate, taken), self.rate / 2, _SLOWEST)
        self.rate = max(self._too_high * _DECREASE, _SLOWEST)
        self._changed_s = now_s
        self._next_s = now_s + 1.0 / self.rate
        return True

    def speed_up(self, now_s: float) -> bool:
        """The sink took a message: raise the limit by the time that passed. Return whether it was lifted."""
        elapsed_s = now_s - self._changed_s
        if self.rate is None or elapsed_s < _HOLD_S:
            return False
        self.rate += self._too_high * _GROWTH * elapsed_s
        self._changed_s = now_s
        if self.rate < self._too_high * _FREE_AT:
            return False
        self.rate = None
        return True


@dataclass(slots=True)
class ConcurrencyLimit:
    """How many deliveries may be in flight at once. All times are monotonic seconds."""

    most: int
    allowed: int = 0
    """How many now. An overloaded sink answers sooner when it gets fewer deliveries at once."""
    _answered: int = 0
    _cut_s: float = float("-inf")

    def __post_init__(self) -> None:
        """Begin with all."""
        self.allowed = self.most

    def narrow(self, began_s: float, now_s: float, in_flight: int) -> bool:
        """A delivery that began at `began_s` timed out: allow half of what was in flight. Return whether it was cut.

        Deliveries that began before the last cut do not count.
        """
        if began_s <= self._cut_s or self.allowed == 1:
            return False
        self.allowed = max(1, min(self.allowed, in_flight) // 2)
        self._cut_s, self._answered = now_s, 0
        return True

    def widen(self) -> bool:
        """The sink answered in time: allow one more after so many answers. Return whether there is one more."""
        self._answered += 1
        if self._answered < self.allowed or self.allowed == self.most:
            return False
        self.allowed, self._answered = self.allowed + 1, 0
        return True
