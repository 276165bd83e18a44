"""What the commands show to people: plain lines and rich tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from rich.cells import cell_len
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from outbox.cli.console import Console
from outbox.store.migrations import remark

NEVER_CUT = 10_000
"""Width in columns of output that may be piped."""

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outbox.store.migrations import Step


def show_steps(steps: list[Step], schema: str) -> bool:
    """Migrations, a line each, and what it means if some are newer. Return whether this version can work with them."""
    for step in steps:
        sys.stdout.write(f"{step.state:8} {step.label}\n")
    if newer := remark(steps, schema):
        sys.stdout.write(f"{newer}\n")
    return {step.state for step in steps} <= {"applied", "newer"}


def show_migrated(steps: list[Step], schema: str) -> None:
    """What a migration has done: the steps that it applied, or that it left a newer schema alone."""
    if newer := remark(steps, schema):
        sys.stdout.write(f"{newer}: nothing to do\n")
        return
    for step in steps:
        sys.stdout.write(f"applied  {step.label}\n")
    sys.stdout.write(f"schema {schema} is up to date\n")


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table without end, line by line, nothing cut. A table of rich takes two milliseconds for each row."""
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        yield f"{'  '.join(cells).rstrip()}\n"


def span(seconds: float) -> str:
    """A duration in the largest unit of which it has two, and seconds below."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def seconds(value: float | None) -> str:
    """A measured duration; a dash for None."""
    if value is None:
        return "–"
    if value >= 120:
        return span(value)
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


_NAMED = 3

_LINE_EVERY_S = 5.0
"""Seconds between two lines of progress where there is no terminal."""


class _Lines:
    """Progress without a terminal: in a job's log."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total, self._done = doing, total, 0
        self._next_s = monotonic() + _LINE_EVERY_S

    def advance(self, count: int) -> None:
        """Count what was done, and say so when it is time."""
        self._done += count
        if monotonic() >= self._next_s:
            self._next_s = monotonic() + _LINE_EVERY_S
            sys.stderr.write(f"outbox: {self._doing}: {self._done} of {self._total}\n")
            sys.stderr.flush()


@contextmanager
def progress(doing: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a bar on a terminal, else a line every few seconds. The function advances it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(doing, total).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


def named(message_ids: Sequence[UUID]) -> str:
    """The first few ids."""
    return ", ".join(map(str, message_ids[:_NAMED])) + (", …" if len(message_ids) > _NAMED else "")


def moment(at: datetime) -> str:
    """A time in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(at: datetime) -> str:
    """How long ago, by this machine's clock."""
    return span((datetime.now(UTC) - at).total_seconds())
