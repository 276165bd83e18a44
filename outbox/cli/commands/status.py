"""The command `outbox status`: the outbox at a glance."""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic
from typing import Annotated, Any

import anyio
import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from outbox.cli.console import Console
from outbox.cli.format import seconds, span
from outbox.cli.session import ask
from outbox.config import settings as config
from outbox.config.settings import Settings
from outbox.model.errors import DatabaseUnavailable
from outbox.model.json_output import json_output
from outbox.postgres.connect import place
from outbox.postgres.pool import open_pool
from outbox.store.migrations import require_current
from outbox.store.overview import Overview

_SILENT_AFTER_S = 65.0
"""Two heartbeats without one."""
_SETTLED_OTHERWISE = {
    "duplicates": "another message had started their workflow id",
    "discarded": "expired messages and deleted dead letters",
}
_WITHIN_S = 2.0
"""Always: the command is used when something is wrong."""
_SCHEMA_WITHIN_S, _LEAST_S, _MARGIN_S = 0.4, 0.3, 0.4
"""The margin is for finding out who blocks what was left out."""


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show waiting messages, failures and workers, within two seconds."""
    report = ask(partial(_report, config.load()))
    if as_json:
        sys.stdout.buffer.write(json_output(report, indent=True))
    else:
        show_status(report)


async def _report(settings: Settings) -> dict[str, Any]:
    """The status, without what cannot be had in time. Raises DatabaseUnavailable where nothing can."""
    end_s = monotonic() + _WITHIN_S
    try:
        with anyio.fail_after(_WITHIN_S):
            async with open_pool(
                settings.dsn, size=1, application_name="outbox cli", statement_timeout_s=_WITHIN_S, for_people=True
            ) as pool:
                missing = {}
                try:
                    async with pool.acquire(timeout_s=_SCHEMA_WITHIN_S) as connection:
                        await require_current(connection, settings.schema_name)
                except (TimeoutError, DatabaseUnavailable):
                    missing["schema version"] = "no answer in time"
                left_s = max(_LEAST_S, end_s - monotonic() - _MARGIN_S)
                return await Overview(pool, settings.schema_name).status(left_s, missing=missing)
    except TimeoutError as error:
        cure = "is it running? `outbox doctor` examines the way to it"
        raise DatabaseUnavailable(
            f"PostgreSQL at {place(settings.dsn)} does not answer within {_WITHIN_S:g} s: {cure}"
        ) from error


_STATES = {
    "pending": "due now",
    "processing": "in a worker's hands",
    "scheduled": "due later, retries included",
    "waiting": "for another of their key, or the end of a pause",
    "retrying": "of all these have failed before",
}
"""What is counted among the unsettled messages."""


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
        table.add_row("oldest due", seconds(oldest_s), "" if oldest_s is None else "ago, even if it is paused")
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
    p50, p99 = (seconds(completed[f"latency_{name}_s"]) for name in ("p50", "p99"))
    table.add_row("latency", p50, f"half of them within that, 99 % within {p99}" if hour else "")


def _show_rules(console: Console, report: dict[str, Any]) -> None:
    """What is held back: pauses, limits, keys with a first message that does not get through."""
    pauses, limits, keys = (report.get(name, ()) for name in ("pauses", "limits", "blocked_keys"))
    if pauses or limits or keys:
        console.print("\nheld back", style="bold")
    for pause in pauses:
        holds = "" if pause["holds"] is None else f", holds {pause['holds']:,}"
        said = f"paused: {pause['name']}, for {span(pause['for_s'])}, by {pause['paused_by']}{holds}"
        console.print(Text(said, "yellow"))
    for limit in limits:
        behind = f", {seconds(limit['behind_s'])} behind" if limit["behind_s"] else ""
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
    """The state that it reported, unless its session has ended or its last heartbeat is too old."""
    if worker["lives"] is False:
        return "dead"
    silent = worker["seen_s_ago"] > _SILENT_AFTER_S
    return "silent" if silent else str(worker["state"])
