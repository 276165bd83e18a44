"""How long to wait before trying again: capped exponential growth with full jitter on its upper half."""

from __future__ import annotations

import random
from dataclasses import dataclass

_MAX_DOUBLINGS = 30
"""2**30 times any base is beyond any cap, and far from overflow."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays of base, 2·base, 4·base … seconds, at most cap, each shortened at random by up to a half.

    The jitter spreads clients that failed together (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    """

    base_s: float
    cap_s: float

    def delay_s(self, failures: int, draw: float | None = None) -> float:
        """Return the wait in seconds after the given number of failures (1 after the first).

        `draw` in [0, 1) replaces the random number, for tests.
        """
        doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
        full = min(self.cap_s, self.base_s * 2.0**doublings)
        return full * (0.5 + 0.5 * (random.random() if draw is None else draw))  # noqa: S311 - spreading, not secrecy
