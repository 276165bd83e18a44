"""Percentiles, and which of them a sample can bear."""

from __future__ import annotations

from collections.abc import Sequence

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


def percentile(values: Sequence[float], percent: float) -> float:
    """The given percentile of at least one value, between neighbours in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def bears(count: int, percent: float) -> bool:
    """Whether this many values say anything about this percentile: at least one of them must be beyond it."""
    return count * (100 - percent) >= 100 - 1e-6
