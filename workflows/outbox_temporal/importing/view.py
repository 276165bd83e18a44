"""What `outbox import` shows. Control characters in what it quotes are written out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from outbox.cli.console import Console
from outbox.model.json_output import json_output
from outbox.model.plain_text import plain
from outbox_temporal.importing.report import ImportReport

SHOWN = 20
"""Findings that stand on the screen; all are in the report."""
_LONGEST_SAMPLE = 2000


@contextmanager
def progress(doing: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal's standard error, elsewhere a line for each tenth. Gives the function that advances it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _RowLines(doing, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


class _RowLines:
    """Progress for a log."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing = doing
        self._total = total
        self._done = 0

    def __call__(self, count: int) -> None:
        """Print a line for every tenth of the whole."""
        before, self._done = self._done, self._done + count
        if self._total and 10 * before // self._total < 10 * self._done // self._total:
            sys.stderr.write(f"outbox: {self._doing} {self._done} of {self._total} rows\n")
            sys.stderr.flush()


def show(report: ImportReport, kept_in: Path | None) -> None:
    """Samples, counts, and the first findings."""
    console = Console(highlight=False, soft_wrap=True)
    for sample in report.samples:
        console.print(Text(f"row {plain(sample['identity'])} would become", "bold"))
        console.print(Text(_sample(sample["message"])))
    for finding in report.findings[:SHOWN]:
        row = f"{finding.what}: row {finding.identity!r}"
        workflow = "" if finding.workflow_id is None else f", workflow {plain(finding.workflow_id)}"
        console.print(Text(f"{row}{workflow}: {plain(finding.detail)}"))
    more = len(report.findings) - SHOWN
    if more > 0:
        console.print(f"… and {more} more, all of them in {kept_in}")
    for what, number in {"rows": report.rows, **report.counts}.items():
        console.print(f"{number:>9}  {what}")


def _sample(message: dict[str, Any]) -> str:
    """A message as JSON; of a large one the beginning."""
    text = json_output(message, indent=True).decode().rstrip()
    return text if len(text) <= _LONGEST_SAMPLE else f"{text[:_LONGEST_SAMPLE]} … ({len(text)} characters)"
