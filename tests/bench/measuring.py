"""Runs a scenario briefly on the tests' servers."""

from __future__ import annotations

import math
from itertools import pairwise
from types import ModuleType
from typing import Any

from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Measurements
from outbox_bench.scenarios.options import brief


async def measured(
    scenario: ModuleType, dsn: str, *, temporal_address: str | None = None, **chosen: Any
) -> Measurements:
    """What the scenario reports, checked for what holds of every report."""
    name = scenario.__name__.rpartition(".")[2]
    report = Measurements(name, name)
    shares: list[float] = []
    options = scenario.OPTIONS(**chosen) if chosen else brief(scenario.OPTIONS)
    async with Lab(dsn, temporal_address) as lab:
        await scenario.measure(lab, options, report, lambda _, share: shares.append(share))
    assert all(0 <= a <= b <= 1 for a, b in pairwise(shares)), shares
    assert report.figures
    for figure in report.figures:
        assert all(math.isfinite(run) for run in figure.runs), figure
    assert all(point[1] >= 0 for curve in report.series.values() for point in curve)
    return report


def by_name(report: Measurements) -> dict[str, list[float]]:
    """Runs by the name of their figure."""
    return {figure.name: figure.runs for figure in report.figures}
