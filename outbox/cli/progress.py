"""Shows on standard error how far a command is that works through many things."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from outbox.cli.console import Console

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
