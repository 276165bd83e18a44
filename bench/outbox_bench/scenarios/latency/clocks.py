"""How far another host's clock is from ours, as precisely as we can see it from outside."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from outbox_bench.load.in_process import connected

_PROBES = 50


@dataclass(frozen=True, slots=True)
class Offset:
    """The other clock minus ours, in seconds."""

    value_s: float
    within_s: float
    """How far from the truth the value can be."""

    @property
    def certain_s(self) -> float:
        """What to correct by: nothing if the clocks may agree, as they do on one machine."""
        return 0.0 if abs(self.value_s) <= self.within_s else self.value_s

    def __str__(self) -> str:
        return f"{1000 * self.value_s:+.2f} ± {1000 * self.within_s:.2f} ms"


def offset(readings: Iterable[tuple[float, float, float]]) -> Offset | None:
    """The offset by readings of the other clock: (sent, theirs, received), each in seconds, ours by one clock.

    A reading was taken between sending and receiving, so it bounds the offset on both sides. All of them hold together;
    if they do not, because a clock was adjusted in the meantime, the median of the midpoints is used.
    """
    known = list(readings)
    if not known:
        return None
    low = max(theirs - received for _, theirs, received in known)
    high = min(theirs - sent for sent, theirs, _ in known)
    if low <= high:
        return Offset((low + high) / 2, (high - low) / 2)
    middle = median(theirs - (sent + received) / 2 for sent, theirs, received in known)
    return Offset(middle, max(low - middle, middle - high))


async def of_database(dsn: str) -> Offset | None:
    """The database host's clock against this one's."""
    readings = []
    async with connected(dsn) as connection:
        statement = await connection.prepare("select extract(epoch from clock_timestamp())::float8")
        for _ in range(_PROBES):
            sent_s = time.time()
            theirs_s = await statement.fetchval()
            readings.append((sent_s, theirs_s, time.time()))
    return offset(readings)
