"""What `outbox dead` shows. Control characters in what it quotes are written out, so that no message moves a cursor."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from outbox.cli.commands.dead.requeue_risk import Risk
from outbox.cli.console import Console
from outbox.cli.format import age, aligned, moment, named, span
from outbox.model.json_output import json_output
from outbox.model.plain_text import plain
from outbox.model.sink import Unavailable
from outbox.store.dead_letters import DeadLetter, DeadLetterTotal

_KEPT = 20
_WIDE_ENOUGH = 110
"""Columns from which on a dead letter has one line, with everything."""
_PIPED = 10_000
"""Columns if output goes to no terminal: nothing is folded or cut."""
_JSON_COLUMNS = ("target", "headers", "payload", "errors")


def show_totals(totals: Sequence[DeadLetterTotal]) -> None:
    """Dead letters by reason and kind, with an example of each."""
    console = _list_console()
    if not totals:
        console.print("no dead letters")
    for total in totals:
        ages = f"{age(total.newest)} to {age(total.oldest)} ago"
        head = Text(f"{total.messages} {total.reason}  ") + Text(plain(total.kind), "red")
        console.print(head + Text(f"  {ages}" if total.messages > 1 else f"  {age(total.newest)} ago"))
        console.print(Text(f"    {plain(total.example)}", "dim"), no_wrap=True, overflow="ellipsis")


def show_dead_letters(letters: Sequence[DeadLetter]) -> None:
    """A row each, of two lines if there is little room. Nothing is cut, because the next command needs the id."""
    if not letters:
        return
    console = _list_console()
    console.print()
    if console.width < _WIDE_ENOUGH:
        _show_in_two_lines(console, letters)
        return
    head = ("message id", "died", "reason", "kind", "topic", "key")
    rows = [
        (
            str(letter.message_id),
            age(letter.died_at),
            letter.reason,
            *map(plain, (letter.kind, letter.topic, letter.key or "")),
        )
        for letter in letters
    ]
    if console.width == _PIPED:
        sys.stdout.writelines(aligned(head, rows))
        return
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns[:3]:
        column.no_wrap = True
    for column in table.columns[3:]:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _show_in_two_lines(console: Console, letters: Sequence[DeadLetter]) -> None:
    console.print(Text(f"{'message id':36}  {'died':6}  reason", "bold"), overflow="fold")
    for letter in letters:
        console.print(Text(f"{letter.message_id}  {age(letter.died_at):6}  {letter.reason}"), overflow="fold")
        key = "" if letter.key is None else f"  key {plain(letter.key)}"
        what = Text(plain(letter.kind), "red") + Text(f"  {plain(letter.topic)}{key}")
        console.print(Padding(what, (0, 0, 0, 4)), overflow="fold")


def show_dead_letter(letter: DeadLetter) -> None:
    """One dead letter whole."""
    console = Console(highlight=False, soft_wrap=True)
    facts = {
        "message": f"{letter.message_id}, number {letter.seq}",
        "topic": letter.topic,
        "key": letter.key,
        "dedup_key": letter.dedup_key,
        "died": f"{moment(letter.died_at)}, {age(letter.died_at)} ago, {letter.reason}",
        "enqueued": moment(letter.created_at),
        "first tried": moment(letter.first_tried_at),
        "last claimed": f"{moment(letter.claimed_at)} by {letter.worker or 'a worker that is forgotten'}",
        "counted": f"attempts {letter.attempts}, deliveries since the last known outcome {letter.deliveries}",
        "priority": str(letter.priority),
        "target": letter.target,
        "headers": letter.headers,
        "payload": letter.payload,
    }
    for name, value in facts.items():
        console.print(Text(f"{name:13}", "bold") + (Text("–", "dim") if value is None else Text(plain(value))))
    errors: list[dict[str, Any]] = orjson.loads(letter.errors)
    kept = f"{len(errors)}, the first and the latest" if len(errors) >= _KEPT else str(len(errors))
    console.print(Text(f"{'errors':13}", "bold") + Text(kept))
    for error in errors:
        at = moment(datetime.fromisoformat(error["at"]))
        counted = "counted" if error["counted"] else "not counted"
        console.print(Text(f"  {at}  {counted:11}  ") + Text(plain(error["kind"]), "red"))
        console.print(Text(f"      {plain(error['detail'])}"))
    console.print()


def write_json(letters: Sequence[DeadLetter], *, whole: bool) -> None:
    """A JSON object a line, its JSON columns as they are stored. Unless `whole`, only the errors are among them."""
    for letter in letters:
        row = letter._asdict()
        for name in _JSON_COLUMNS:
            text = row.pop(name)
            if whole or name == "errors":
                # A line break in JSON text is only between its tokens, and would end our line.
                row[name] = None if text is None else orjson.Fragment(text.replace("\n", " ").replace("\r", " "))
        sys.stdout.buffer.write(json_output(row))


def show_risk(risk: Risk, *, force: bool) -> None:
    """One line that says why these may start a second workflow, and what to do."""
    where = "" if risk.namespace is None else f" in namespace {risk.namespace}"
    if isinstance(risk.memory, Unavailable):
        reason = f"{risk.memory.kind}: {risk.memory.detail}"
        why = f"the sink did not say for how long it recognises a repeat{where} ({reason})"
        cure = "give it with --retention, or"
    else:
        why = f"first tried longer ago than the sink recognises a repeat{where} ({span(risk.memory)})"
        cure = "look in the sink, then"
    count, ids = len(risk.message_ids), named(risk.message_ids)
    twice = "if that try got through, a second workflow would start"
    if force:
        sys.stderr.write(f"outbox: warning: {count} forced, {why}; {twice}: {ids}\n")
    else:
        sys.stderr.write(f"outbox: {count} left dead, {why}; {twice}; {cure} use --force: {ids}\n")


def _list_console() -> Console:
    """Standard output as wide as the terminal, or as COLUMNS says; without either, wide enough for everything."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else _PIPED)
