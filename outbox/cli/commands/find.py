"""The command `outbox find`: where a message is, what becomes of it next, and what failed last."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.text import Text

from outbox.cli.arguments import duration_s
from outbox.cli.console import Console
from outbox.cli.format import age, moment
from outbox.cli.session import ask_store
from outbox.model.json_output import json_output
from outbox.model.plain_text import plain
from outbox.store.search import FoundMessage, Search

_SHOWN = 20
_COLOURS = {"completed": "green", "failed": "red", "processing": "cyan", "cancelled": "dim", "discarded": "dim"}


def find(
    wanted: Annotated[str, typer.Argument(metavar="ID|KEY|WORKFLOW_ID")],
    within: Annotated[
        str, typer.Option(metavar="AGE", help="How far to look back for settled messages by key or workflow id.")
    ] = "1d",
    limit: Annotated[int, typer.Option(min=1, help="At most this many: the latest.")] = _SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show where a message is: waiting, with a worker, delivered, cancelled or a dead letter.

    Exit 1 if there is none. A message id finds a message however old, while its history is kept.
    """
    within_s = duration_s(within)
    found = ask_store(Search, lambda search: search.find(wanted, within_s, limit + 1))
    for message in found[:limit]:
        if as_json:
            sys.stdout.buffer.write(json_output(message._asdict()))
        else:
            _show(message)
    if len(found) > limit:
        sys.stderr.write(f"outbox: there are more: add --limit {2 * limit}\n")
    if not found:
        sys.stderr.write(
            f"outbox: {plain(repr(wanted))} is no message's id, key or workflow id, unsettled, dead or settled within "
            f"{within}: look further back with --within 7d\n"
        )
        raise typer.Exit(1)


def _show(message: FoundMessage) -> None:
    console = Console(highlight=False, soft_wrap=True)
    head = Text(f"{message.message_id}  ", "bold") + Text(message.status, _COLOURS.get(message.status, "yellow"))
    if message.outcome not in (None, message.status, "delivered"):
        head += Text(f" ({message.outcome})")
    console.print(head)
    for name, value in _facts(message).items():
        if value is not None:
            console.print(Text(f"    {name:12}", "dim") + Text(plain(value)))


def _facts(message: FoundMessage) -> dict[str, str | None]:
    """The lines below the first one; None has no line."""
    worker = message.worker or "a worker that is forgotten"
    asked = " ".join(filter(None, (message.operation, message.workflow, message.workflow_id)))
    counted = f"attempts {message.attempts}, deliveries since the last known outcome {message.deliveries}"
    return {
        "topic": message.topic,
        "key": message.key,
        "asks for": asked or None,
        "run": message.run_id,
        "enqueued": f"{moment(message.enqueued_at)}, {age(message.enqueued_at)} ago",
        "claimed": None if message.claimed_at is None else f"{moment(message.claimed_at)} by {worker}",
        "settled": None if message.settled_at is None else moment(message.settled_at),
        "next try": None if message.next_try_at is None else moment(message.next_try_at),
        "counted": counted if message.attempts or message.deliveries else None,
        "last error": message.last_error,
    }
