"""What the commands show to people: plain lines and rich tables on standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outbox.console import Console
from outbox.migrate import remark

_SILENT_AFTER_S = 65.0
"""Two heartbeats without one."""

_STATES = {
    "pending": "due now",
    "processing": "in a worker's hands",
    "scheduled": "due later, retries included",
    "waiting": "for another of their key, or the end of a pause",
    "retrying": "of all these have failed before",
}
"""What is counted among the unsettled messages."""

_SETTLED_OTHERWISE = {
    "duplicates": "another message had started their workflow id",
    "discarded": "expired, as their producer asked",
}

_WIDE = 10_000
"""Columns of what is never cut: it may be piped."""

_GRADES = {"good": ("good", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "bold red")}

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outbox.doctor import Group
    from outbox.migrate import Step
    from outbox.sink import Setting


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


def show_status(report: dict[str, Any]) -> None:
    """The status, as far as it could be had."""
    console = Console(highlight=False)
    console.print(_counts(report))
    _show_rules(console, report)
    errors = report.get("errors")
    if errors:
        console.print("\nlatest errors of messages and dead letters", style="bold")
    for error in errors or ():
        dead = f", {error['dead_letters']} of them dead letters" if error["dead_letters"] else ""
        head = Text(error["kind"], "red") + Text(f" in {error['topic']} × {error['messages']}{dead}: ")
        console.print(head + Text(error["example"]))
    console.print()
    if "workers" in report:
        _show_workers(console, report["workers"])
    for part, reason in report["missing"].items():
        console.print(Text(f"missing: {part}: {reason}", "red"), soft_wrap=True)
    if report["blocked_by"]:
        console.print(Text(f"locked: {report['blocked_by']}", "bold red"), soft_wrap=True)


def _counts(report: dict[str, Any]) -> Table:
    """How many messages are where, of what could be counted."""
    table = Table("", "", "", show_header=False, box=None, pad_edge=False)
    table.columns[1].justify, table.columns[2].style = "right", "dim"
    if "messages" in report:
        messages = report["messages"]
        for name, note in _STATES.items():
            table.add_row(name, f"{messages[name]:,}", note)
        oldest_s = messages["oldest_pending_s"]
        table.add_row("oldest due", _seconds(oldest_s), "" if oldest_s is None else "ago, whatever keeps it")
    if "dead_letters" in report:
        dead = report["dead_letters"]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dead.items())
        note = f"{reasons}; see `outbox dead list`" if dead else ""
        table.add_row("dead letters", f"{sum(dead.values()):,}", note)
    if "completed" in report:
        _add_completed(table, report["completed"])
    return table


def _add_completed(table: Table, completed: dict[str, Any]) -> None:
    hour = completed["last_hour"]
    table.add_row("completed", f"{hour:,}", f"in the last hour, {completed['last_minute']:,} in the last minute")
    for name, note in _SETTLED_OTHERWISE.items():
        if completed[f"{name}_last_hour"]:
            table.add_row(name, f"{completed[f'{name}_last_hour']:,}", f"in the last hour, {note}")
    p50, p99 = (_seconds(completed[f"latency_{name}_s"]) for name in ("p50", "p99"))
    table.add_row("latency", p50, f"half of them within that, 99 % within {p99}" if hour else "")


def _show_rules(console: Console, report: dict[str, Any]) -> None:
    """What is held back: pauses, limits, keys whose first message does not get through."""
    pauses, limits, keys = (report.get(name, ()) for name in ("pauses", "limits", "blocked_keys"))
    if pauses or limits or keys:
        console.print("\nheld back", style="bold")
    for pause in pauses:
        holds = "" if pause["holds"] is None else f", holds {pause['holds']:,}"
        said = f"paused: {pause['name']}, for {span(pause['for_s'])}, by {pause['paused_by']}{holds}"
        console.print(Text(said, "yellow"))
    for limit in limits:
        behind = f", {_seconds(limit['behind_s'])} behind" if limit["behind_s"] else ""
        console.print(Text(f"limited: {limit['topic']}, {limit['rate']:g} a second, {limit['burst']} at once{behind}"))
    for key in keys:
        why = "is paused" if key["parked"] else f"failed {key['attempts']} times: {key['last_error']}"
        console.print(Text(f"key {key['key']}: {key['waiting']} wait for {key['message_id']}, which {why}", "yellow"))


def _show_workers(console: Console, workers: list[dict[str, Any]]) -> None:
    table = Table("worker", "state", "seen", "in flight", "version", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    for worker in workers:
        state = _state(worker)
        in_flight = "" if state == "dead" else str(worker["detail"].get("in_flight", ""))
        shown = [worker["name"], state, f"{span(worker['seen_s_ago'])} ago", in_flight, worker["version"]]
        table.add_row(*map(escape, shown), style="red" if state in ("dead", "silent") else None)
    if workers:
        console.print(table)
    for worker in workers:
        if _state(worker) == "holding":
            place = worker["detail"].get("sink") or "the sink"
            said = f"{worker['name']} holds: {place}: {worker['detail'].get('held_by')}"
            console.print(Text(said, "yellow"), soft_wrap=True)
    if all(_state(worker) in ("dead", "silent") for worker in workers):
        console.print("no worker is running: `outbox run` starts one", style="red")


def _state(worker: dict[str, Any]) -> str:
    """What it said of itself, unless its session has ended, or nothing was heard of it for long."""
    if worker["lives"] is False:
        return "dead"
    silent = worker["seen_s_ago"] > _SILENT_AFTER_S
    return "silent" if silent else str(worker["state"])


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
    left = max(console.width - head.cell_len, 20) if console.is_terminal else _WIDE
    first, *rest = Text(detail).wrap(console, left)
    for line in (head + first, *(Text(" " * head.cell_len) + each for each in rest)):
        line.rstrip()
        console.print(line, soft_wrap=True)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def show_settings(groups: dict[str, list[Setting]], doubts: Sequence[str]) -> None:
    """Settings, their values, and where they come from; what is doubtful about them."""
    console = Console(highlight=False, soft_wrap=True, width=_WIDE)
    for title, settings in groups.items():
        table = Table(title, "", "from", box=None, title_justify="left", pad_edge=False)
        for setting in settings:
            value = str(setting.value).lower() if isinstance(setting.value, bool) else _plain(setting.value)
            default = setting.origin.startswith("default")
            table.add_row(*map(escape, (setting.name, value, setting.origin)), style="dim" if default else None)
        if settings:
            console.print(table)
            console.print()
    for doubt in doubts:
        console.print(Text(f"doubtful: {doubt}", "yellow"))


def _plain(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def show_modes(workers: list[dict[str, Any]]) -> None:
    """What wakes each worker."""
    table = Table("worker", "mode", "asked for by", "sources", box=None)
    for worker in workers:
        detail = worker["detail"]
        sources = ", ".join(f"{name}: {state}" for name, state in detail.get("sources", {}).items())
        shown = [worker["name"], detail.get("mode", ""), detail.get("mode_from", ""), sources or "polling only"]
        table.add_row(*map(escape, shown))
    Console(highlight=False).print(table if workers else "no worker is running")


def span(seconds: float) -> str:
    """A duration in the largest unit of which it has two, and seconds below."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value >= 120:
        return span(value)
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
