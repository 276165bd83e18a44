"""Filling a report while its runs go on, so that what was measured survives an interruption."""

from __future__ import annotations

from collections.abc import Callable

from outbox_bench.report.report import Figure, Goal, Measurements


def add_run(report: Measurements, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
    """Add one run's value to the figure `name`, which begins with its first run."""
    for figure in report.figures:
        if figure.name == name:
            figure.runs.append(value)
            return
    report.figures.append(Figure(name, unit, [value], goal))


def add_total(report: Measurements, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
    """Add one run's value to the one number over all runs: what must never happen is not to vanish in a median."""
    _merge(report, name, unit, value, goal, lambda before: before + value)


def add_longest(report: Measurements, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
    """Keep the largest of all runs."""
    _merge(report, name, unit, value, goal, lambda before: max(before, value))


def _merge(
    report: Measurements, name: str, unit: str, value: float, goal: Goal | None, merged: Callable[[float], float]
) -> None:
    for figure in report.figures:
        if figure.name == name:
            figure.runs[:] = [merged(figure.runs[0])]
            return
    report.figures.append(Figure(name, unit, [value], goal))


def add_samples(report: Measurements, name: str, values_s: list[float]) -> None:
    """Add single measurements, given in seconds."""
    report.samples.setdefault(name, []).extend(1000 * value for value in values_s)


def add_note(report: Measurements, note: str) -> None:
    """Add a note, unless it is there already."""
    if note not in report.notes:
        report.notes.append(note)
