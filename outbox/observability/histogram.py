"""A histogram for whole batches: what one of prometheus-client costs for each value, this costs for ten.

Not locked: one thread writes, and a reader may see a batch half counted, which the next scrape makes good.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf

SECONDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0),
)
"""From one millisecond to a quarter of an hour, closest where starts usually are."""
MESSAGES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
_MANY = 16
"""Values from which sorting them and finding each bound among them is cheaper than finding each value's bucket."""


class Histogram:
    """Counts values into buckets. A value that is a bound belongs below it, as Prometheus has it."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of the values."""

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def add_all(self, values: list[float]) -> None:
        """Count a batch. Sorts it in place."""
        self.total += sum(values)
        counts, bounds = self._counts, self._bounds
        if len(values) < _MANY:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
            return
        values.sort()
        below = 0
        for bucket in range(bisect_left(bounds, values[0]), len(bounds)):
            upto = bisect_right(values, bounds[bucket], below)
            counts[bucket] += upto - below
            below = upto
            if below == len(values):
                return
        counts[-1] += len(values) - below

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each bucket's upper bound, `inf` for the last, and how many values are not above it."""
        return zip((*self._bounds, inf), accumulate(self._counts.copy()), strict=True)
