"""What the commands show to people: plain lines and rich tables on standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_SILENT_AFTER_S = 65.0
"""Two heartbeats without one."""

_WIDE = 10_000
"""Columns of what is never cut: it may be piped."""

_GRADES = {"good": ("good", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "bold red")}

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.doctor import Group
    from outbox.migrate import Step
    from outbox.sink import Setting


def show_steps(steps: list[Step], done: Literal["applied"] | None = None) -> None:
    """Migrations, a line each."""
    for step in steps:
        sys.stdout.write(f"{done or step.state:8} {step.version:04d}_{step.name}\n")


def show_status(report: dict[str, Any]) -> None:
    """The answer of `status.sql`."""
    console = Console()
    messages, completed = report["messages"], report["completed"]
    table = Table("messages", "", show_header=False, box=None)
    for name in ("pending", "processing", "scheduled", "waiting", "retrying"):
        table.add_row(name, f"{messages[name]}")
    table.add_row("oldest due", _seconds(messages["oldest_pending_s"]))
    table.add_row("dead letters", ", ".join(f"{n} {reason}" for reason, n in report["dead_letters"].items()) or "0")
    table.add_row(
        "completed", f"{completed['last_minute']} in the last minute, {completed['last_hour']} in the last hour"
    )
    table.add_row("latency", f"p50 {_seconds(completed['latency_p50_s'])}, p99 {_seconds(completed['latency_p99_s'])}")
    console.print(table)
    for pause in report["pauses"]:
        console.print(
            f"paused: {pause['name']}, for {_seconds(pause['for_s'])}, by {pause['paused_by']}", style="yellow"
        )
    for limit in report["limits"]:
        behind = f", {_seconds(limit['behind_s'])} behind" if limit["behind_s"] else ""
        console.print(f"limited: {limit['topic']}, {limit['rate']:g} a second, {limit['burst']} at once{behind}")
    for key in report["blocked_keys"]:
        why = "is paused" if key["parked"] else f"failed {key['attempts']} times: {key['last_error']}"
        console.print(Text(f"key {key['key']}: {key['waiting']} wait for {key['message_id']}, which {why}", "yellow"))
    for error in report["errors"]:
        console.print(Text(error["kind"], "red") + Text(f" × {error['messages']}: {error['example']}"), highlight=False)
    workers = Table("worker", "state", "seen", "in flight", "version", box=None)
    for worker in report["workers"]:
        detail = worker["detail"]
        silent = worker["seen_s_ago"] > _SILENT_AFTER_S
        shown = [
            worker["name"],
            "silent" if silent else worker["state"],
            f"{worker['seen_s_ago']:.0f} s ago",
            str(detail.get("in_flight", "")),
            worker["version"],
        ]
        workers.add_row(*map(escape, shown), style="red" if silent else None)
    if report["workers"]:
        console.print(workers)
    if all(worker["seen_s_ago"] > _SILENT_AFTER_S for worker in report["workers"]):
        console.print("no worker is running", style="red")


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
    faults, warnings = (sum(finding.grade == grade for finding in found) for grade in ("fault", "warning"))
    counts = ", ".join((_counted(faults, "fault"), _counted(warnings - left, "warning"), f"{left} not tried"))
    console.print(Text(f"{'not ' if faults else ''}safe to start: {counts}", "bold red" if faults else "bold green"))


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


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
