"""What `outbox import` shows. Control characters in what it quotes are written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from outbox.cli.console import Console
from outbox.model.json_output import json_output
from outbox.model.plain_text import plain
from outbox_temporal.importing.report import ImportReport

SHOWN = 20
"""Findings that stand on the screen; all are in the report."""
_LONGEST_SAMPLE = 2000


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
