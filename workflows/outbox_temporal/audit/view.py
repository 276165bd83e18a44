"""What `outbox audit` shows: a table by kind, and a line for each finding; or JSON lines."""

from __future__ import annotations

import sys

from rich.table import Table
from rich.text import Text

from outbox.cli.console import Console
from outbox.cli.format import NEVER_CUT, moment
from outbox.model.json_output import json_output
from outbox.model.plain_text import plain
from outbox_temporal.audit.findings import AuditReport, Difference, Kind
from outbox_temporal.audit.records import Scope


def show(report: AuditReport, scope: Scope) -> None:
    """The table, then the findings kind by kind, faults first. No line is cut: it may be piped."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else NEVER_CUT)
    console.print(_heading(report, scope))
    if report.counts:
        table = Table(box=None, show_header=False, pad_edge=False)
        for kind in _found(report):
            table.add_row(Text(kind, _colour(kind)), str(report.counts[kind]), kind.meaning + _verdict(kind))
        console.print(table)
    for kind in _found(report):
        shown = report.shown(kind)
        for finding in shown:
            console.print(Text(f"{kind}  ", _colour(kind)) + Text(line(finding)))
        if report.counts[kind] > len(shown):
            more = report.counts[kind] - len(shown)
            console.print(Text(f"{kind}  and {more} more: --limit shows more of each kind", "dim"))
    if not report.faults and not report.interrupted and not report.troubles:
        console.print(Text("no fault found", "green"))


def line(finding: Difference) -> str:
    """A finding in one line: what it is about, why it was found, what to do."""
    run = f" run {finding.run_id}" if finding.run_id else ""
    message = f", message {finding.message_id}" if finding.message_id else ""
    subject = f"{finding.namespace}/{finding.workflow_id}{run}{message}"
    return plain(f"{subject}: {finding.what}; {finding.kind.cure}").replace("\n", "\\n")


def write_finding(finding: Difference) -> None:
    """A finding as a JSON line, at once."""
    about = {"cure": finding.kind.cure, "fault": finding.kind.is_fault}
    _write(finding._asdict() | about)
    sys.stdout.buffer.flush()


def write_summary(report: AuditReport, scope: Scope) -> None:
    """The last JSON line."""
    _write(
        {
            "since": scope.since,
            "until": scope.until,
            "namespaces": sorted(scope.retention_s),
            "messages": report.messages,
            "runs": report.runs,
            "faults": report.faults,
            "found": {kind.value: report.counts[kind] for kind in _found(report)},
            "complete": not (report.interrupted or report.troubles),
        }
    )


def _write(row: dict[str, object]) -> None:
    sys.stdout.buffer.write(json_output(row))


def _heading(report: AuditReport, scope: Scope) -> str:
    where = ", ".join(sorted(scope.retention_s))
    what = f"{report.messages:,} messages and {report.runs:,} runs compared in {plain(where)}"
    return f"{moment(scope.since)} to {moment(scope.until)}: {what}"


def _found(report: AuditReport) -> list[Kind]:
    return [kind for kind in Kind if report.counts[kind]]


def _colour(kind: Kind) -> str:
    return "red" if kind.is_fault else "dim"


def _verdict(kind: Kind) -> str:
    return "" if kind.is_fault else " (no fault)"
