"""What people see in the terminal: a report's figures, its samples with histograms, and the progress on the way."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Self

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from outbox.cli.console import Console
from outbox_bench.report.format import circumstances, number, with_unit
from outbox_bench.report.percentiles import PERCENTILES, bears, percentile
from outbox_bench.report.report import Figure
from outbox_bench.report.results import Result

_BARS = " ▁▂▃▄▅▆▇█"
_BUCKETS = 28


def paper() -> Console:
    """Standard output. A file or a pipe is as wide as the tables are."""
    return Console(width=None if sys.stdout.isatty() else 130)


def show(result: Result, console: Console) -> None:
    """A whole result."""
    report = result.report
    console.print(Text(f"{report.scenario}: {report.title}", "bold"))
    console.print(Text("\n".join(circumstances(result)), "dim"), highlight=False)
    for part in (_figures(report.figures), _samples(report.samples)):
        if part is not None:
            console.print()
            console.print(part)
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Text(f"! {note}", "yellow"), highlight=False)


def show_goals(results: Iterable[Result], console: Console) -> None:
    """Every figure with a goal, of all scenarios, in one table."""
    table = _table("", "figure", ">measured", ">goal", "")
    for result in results:
        rows = [figure for figure in result.report.figures if figure.goal and figure.runs]
        for place, figure in enumerate(rows):
            table.add_row("" if place else result.report.scenario, escape(figure.name), *_against_goal(figure))
        if rows:
            table.add_section()
    console.print(Text("all goals", "bold"))
    console.print(table)


class Bar:
    """Progress on standard error: a bar on a terminal, elsewhere a line whenever something else begins.

    It is drawn when the scenario says so, not by a thread of its own, which would disturb what is measured.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._what = ""
        self._drawn_s = 0.0
        columns = (
            TextColumn("[bold]{task.fields[name]}[/]"),
            BarColumn(32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._progress.add_task("starting", total=1.0, name=name)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, what: str, fraction: float) -> None:
        """Show what is being done, and how much of everything is done."""
        new, self._what = what != self._what, what
        if not self._console.is_terminal:
            if new:
                self._console.print(f"{self._name}: {fraction:4.0%} {what}", highlight=False)
        elif new or monotonic() - self._drawn_s > 0.25:
            self._drawn_s = monotonic()
            self._progress.update(self._task, description=what, completed=fraction, refresh=True)


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """A histogram in one line, over buckets of equal ratio between `low` and `high`."""
    counts = [0] * _BUCKETS
    span = math.log(high / low) if high > low else 1.0
    for value in values:
        place = math.log(max(value, low) / low) / span if high > low else 0.0
        counts[min(_BUCKETS - 1, int(place * _BUCKETS))] += 1
    top = max(counts)
    return "".join(_BARS[math.ceil(count / top * (len(_BARS) - 1))] for count in counts)


def _figures(figures: list[Figure]) -> RenderableType | None:
    """The figures with their spread between runs."""
    rows = [figure for figure in figures if figure.runs]
    if not rows:
        return None
    table = _table("figure", ">measured", "runs", ">goal", "")
    for figure in rows:
        measured, goal, verdict = _against_goal(figure)
        table.add_row(escape(figure.name), measured, _runs(figure), goal, verdict)
    return table


def _runs(figure: Figure) -> Text:
    if len(figure.runs) == 1:
        return Text("one run", "dim")
    return Text(f"{number(min(figure.runs))} … {number(max(figure.runs))} in {len(figure.runs)}", "dim")


def _against_goal(figure: Figure) -> tuple[str, str, Text]:
    measured = with_unit(figure.value, figure.unit)
    if figure.goal is None:
        return measured, "", Text()
    goal = f"{figure.goal.relation} {with_unit(figure.goal.value, figure.unit)}"
    return measured, goal, Text("reached", "green") if figure.reached else Text("missed", "bold red")


def _samples(samples: dict[str, list[float]]) -> RenderableType | None:
    """Percentiles and a histogram of each sample, by group, the histograms of a group to one scale."""
    groups: dict[str, list[tuple[str, list[float]]]] = {}
    for full_name, values in samples.items():
        group, name = _split(full_name)
        if values:
            groups.setdefault(group, []).append((name, values))
    if not groups:
        return None
    table = _table("milliseconds", ">n", *(f">p{percent:g}" for percent in PERCENTILES), ">max", "")
    for group, rows in groups.items():
        low = max(0.01, min(percentile(values, 1) for _, values in rows))
        high = max(percentile(values, 99.5) for _, values in rows)
        scale = Text(f"{number(low)} ms".ljust(_BUCKETS - len(number(high)) - 3) + f"{number(high)} ms", "dim")
        table.add_row(Text(group, "bold"), *[""] * (len(PERCENTILES) + 2), scale)
        for name, values in rows:
            shown = [number(percentile(values, p)) if bears(len(values), p) else "–" for p in PERCENTILES]
            histogram = Text(sparkline(values, low, high), "cyan")
            table.add_row(f"  {escape(name)}", f"{len(values):,}", *shown, number(max(values)), histogram)
        table.add_section()
    few = Text("– : too few measurements for this percentile. Histograms are on a logarithmic scale.", "dim")
    return Group(table, few)


def _split(name: str) -> tuple[str, str]:
    group, colon, rest = name.partition(": ")
    return (group, rest) if colon else ("", name)


def _table(*columns: str) -> Table:
    """A table. Columns marked with > are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=right)
    return table
