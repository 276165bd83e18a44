"""What a benchmark found. Pure data: `cli.terminal` shows it, `results` keeps it, `plots` draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be: `Goal("≤", 1.10)`."""

    relation: Literal["≤", "≥"]
    value: float

    def reached(self, value: float) -> bool:
        """Whether the value is as good as the goal."""
        return value <= self.value if self.relation == "≤" else value >= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured once in each run. Its value is the median of the runs."""

    name: str
    """What it is, as a table's row says it: `event ÷ direct, p50`."""
    unit: str
    """`ms`, `rows/s`, `×` for a ratio measured in one run, …"""
    runs: list[float]
    goal: Goal | None = None

    @property
    def value(self) -> float:
        """The median of the runs."""
        return median(self.runs)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        return None if self.goal is None else self.goal.reached(self.value)


@dataclass(slots=True)
class Measurements:
    """What one scenario found, and under which circumstances. It is filled run by run: an interruption loses little."""

    scenario: str
    """The command's name: `latency`, `throughput`, …"""
    title: str
    figures: list[Figure] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Single measurements in milliseconds by what they measure, of all runs: for percentiles, histograms and plots."""
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Curves by name: points (x, y) for plots."""
    settings: dict[str, object] = field(default_factory=dict)
    """The requested options, and what the measured parts ran with: rates, sizes, frontend, versions of peers."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know to judge the figures: interrupted, noisy, not run and why."""

    def measured(self, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Add one run's value to the figure of this name."""
        self._runs(name, unit, goal).append(value)

    def total(self, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Add one run's value to one number over all runs. What must never happen must not vanish in a median."""
        runs = self._runs(name, unit, goal)
        runs[:] = [sum(runs) + value]

    def longest(self, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Keep the largest value of all runs."""
        runs = self._runs(name, unit, goal)
        runs[:] = [max([*runs, value])]

    def _runs(self, name: str, unit: str, goal: Goal | None) -> list[float]:
        """The runs of the figure of this name, which begins here if it is new."""
        figure = next((figure for figure in self.figures if figure.name == name), None)
        if figure is None:
            figure = Figure(name, unit, [], goal)
            self.figures.append(figure)
        return figure.runs

    def sampled(self, name: str, values: Iterable[float]) -> None:
        """Add one run's single measurements, in milliseconds. `group: name` has a table show them by groups."""
        self.samples.setdefault(name, []).extend(values)

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)


def ms(seconds: Iterable[float]) -> list[float]:
    """These times in milliseconds."""
    return [1000 * each for each in seconds]


ShowProgress = Callable[[str, float], None]
"""How a scenario reports its progress: what it is at, and how much of everything is done, 0 to 1."""
