"""The command `outbox doctor`: what is wrong, and its cure."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from outbox.cli.console import Console
from outbox.cli.session import ask
from outbox.config.report import survey
from outbox.doctor import examine, is_safe
from outbox.model.json_output import json_output

if TYPE_CHECKING:
    from outbox.doctor import Group
from outbox.cli.format import NEVER_CUT


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check everything that a worker needs, and print the cure for each fault; exit 1 unless it is safe to start."""
    found = survey()
    groups = ask(partial(examine, found.reading, found.sink, found.faults, found.sink_faults))
    safe = is_safe(groups)
    if as_json:
        report = {"safe": safe, "findings": [finding for group in groups for finding in group.findings]}
        sys.stdout.buffer.write(json_output(report, indent=True))
    else:
        show_findings(groups)
    if not safe:
        raise typer.Exit(1)


_GRADES = {"good": ("good", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "bold red")}


def show_findings(groups: list[Group]) -> None:
    """What was examined, by groups; under what is wrong its cure, on lines of its own that are never broken."""
    console = Console(highlight=False)
    named = max(len(finding.what) for group in groups for finding in group.findings) + 2
    for group in groups:
        console.print(Text(group.title, "bold"))
        untried: dict[str, list[str]] = {}
        for finding in group.findings:
            if finding.reason_untried is not None:
                untried.setdefault(finding.reason_untried, []).append(finding.what)
                continue
            word, style = _GRADES[finding.grade]
            _show_beside(console, Text(f"  {word:9}{finding.what:{named}}", style), finding.detail)
            for line in (finding.cure or "").splitlines():
                console.print(Text(" " * 11 + line, "cyan"), soft_wrap=True)
        for reason, checks in untried.items():
            _show_beside(console, Text(f"  {'–':9}{'not tried':{named}}", "yellow"), f"{', '.join(checks)}: {reason}")
    found = [finding for group in groups for finding in group.findings]
    left = sum(finding.reason_untried is not None for finding in found)
    tried = [finding for finding in found if finding.reason_untried is None]
    faults, warnings = (sum(finding.grade == grade for finding in tried) for grade in ("fault", "warning"))
    counts = ", ".join((_counted(faults, "fault"), _counted(warnings, "warning"), f"{left} not tried"))
    safe = all(finding.grade != "fault" for finding in found)
    verdict = "safe to start" if safe else "not safe to start" if faults else "not known to be safe to start"
    console.print(Text(f"{verdict}: {counts}", "bold green" if safe else "bold red"))


def _show_beside(console: Console, head: Text, detail: str) -> None:
    """A text in the space that is left beside what begins its line; in one line where no terminal is."""
    left = max(console.width - head.cell_len, 20) if console.is_terminal else NEVER_CUT
    first, *rest = Text(detail).wrap(console, left)
    for line in (head + first, *(Text(" " * head.cell_len) + each for each in rest)):
        line.rstrip()
        console.print(line, soft_wrap=True)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
