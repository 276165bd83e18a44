"""Whether the machine was quiet enough for the claims of a report, and the signs if it was not."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from outbox_bench.report.percentiles import percentile
from outbox_bench.report.report import Measurements

_ROUNDS, _LOOPS = 40, 40_000
_UNSTEADY = 1.25
_BUSY = 0.4
_STOLEN = 0.02
_SPREAD = 0.35


class Noise:
    """Looks at the machine before and after a measurement."""

    def __init__(self) -> None:
        self._load = _load_average()
        self._spins_s = _spin()
        self._times = _cpu_times()

    def notes(self, report: Measurements) -> list[str]:
        """What makes the report's figures doubtful, a sentence each."""
        cores = os.cpu_count() or 1
        found = []
        if self._load is not None and self._load > _BUSY * cores:
            found.append(
                f"noisy: other programs were at work, load average {self._load:.1f} on {cores} cores before the run"
            )
        stolen = _stolen(self._times, _cpu_times())
        if stolen > _STOLEN:
            found.append(f"noisy: the hypervisor took {stolen:.0%} of the processor's time away (steal)")
        spins_s = [*self._spins_s, *_spin()]
        slowest = percentile(spins_s, 90) / min(spins_s)
        if slowest > _UNSTEADY:
            found.append(f"noisy: the same short loop took up to {slowest:.2f} times as long as at its fastest")
        return [*found, *_unsteady(report)]


def _unsteady(report: Measurements) -> list[str]:
    """Figures that differ between runs by more than the claim can bear."""
    found = []
    for figure in report.figures:
        if figure.goal is None or not figure.runs:
            continue
        low, high = min(figure.runs), max(figure.runs)
        reached = sum(1 for value in figure.runs if figure.goal.reached(value))
        if 0 < reached < len(figure.runs):
            found.append(f"unsteady: {figure.name} reached its goal in {reached} of {len(figure.runs)} runs")
        elif high - low > _SPREAD * abs(figure.value):
            found.append(f"unsteady: {figure.name} lay between {low:.3g} and {high:.3g} {figure.unit}")
    return found


def _spin() -> list[float]:
    """Seconds that a fixed loop took, again and again."""
    taken_s = []
    for _ in range(_ROUNDS):
        began_s = perf_counter()
        for _ in range(_LOOPS):
            pass
        taken_s.append(perf_counter() - began_s)
    return taken_s


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpu_times() -> list[int]:
    """Ticks in user, nice, system, idle, iowait, irq, softirq and steal, of all processors together."""
    try:
        return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return []


def _stolen(before: list[int], after: list[int]) -> float:
    """The share of time that went to other machines on the same host."""
    spent: list[int] = [late - early for early, late in zip(before, after, strict=False)]
    total = sum(spent)
    return spent[7] / total if len(spent) == 8 and total else 0.0
