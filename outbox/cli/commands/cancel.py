"""The command `outbox cancel`: takes messages back before their delivery."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import UUID

import typer

from outbox.cli.arguments import message_id
from outbox.cli.session import ask_store
from outbox.store.dead_letters import Cancelled, DeadLetters

_INSTEAD = {
    "failed": "not cancelled: it is a dead letter already, see `outbox dead show`; `outbox dead discard` deletes it",
    "completed": "not cancelled: it was delivered already; `outbox.cancel_workflow` asks its workflow to end",
    "cancelled": "cancelled before",
    "discarded": "not cancelled: it had expired, and was discarded",
}

_DOUBTS = {
    "tried": "; it had been tried before, and that may have got through",
    "perhaps": "; PostgreSQL has crashed or failed over since: it may have been delivered before, see `outbox audit`",
}


def cancel(
    message_ids: Annotated[list[UUID], typer.Argument(metavar="MESSAGE_ID", parser=message_id)],
) -> None:
    """Take messages back before their delivery.

    Exit 1 unless all of them are. A message that a worker holds right now may be on its way and is left alone. This is
    about messages: to cancel a workflow, enqueue outbox.cancel_workflow.
    """
    answers = ask_store(DeadLetters, lambda letters: letters.cancel(message_ids))
    by_id = {answer.message_id: answer for answer in answers}
    for asked in dict.fromkeys(message_ids):
        sys.stdout.write(f"{asked} {_line(by_id[asked])}\n")
    if not all(answer.cancelled or answer.status == "cancelled" for answer in answers):
        raise typer.Exit(1)


def _line(answer: Cancelled) -> str:
    """What became of one message, in a line."""
    if answer.cancelled:
        return "cancelled" + (_DOUBTS[answer.tried] if answer.tried else "")
    if answer.cancelled is False:
        return "in flight: a worker holds it and it may be on its way; ask again when it has settled or failed"
    if answer.status is None:
        return "not there: no message has this id, or its history has been dropped"
    return _INSTEAD.get(answer.status, "not there any more: it was settled just now; ask again")
