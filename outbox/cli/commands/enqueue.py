"""The command `outbox enqueue`: one message from arguments, or many from lines of JSON, in one transaction."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer

from outbox.cli import arguments as words
from outbox.cli.options import with_options
from outbox.cli.session import ask_store
from outbox.model.errors import ConfigurationError, DatabaseRefused, OutboxError
from outbox.store.enqueue import Enqueuing

_NEEDS = {"dedup_window": "dedup_key", "on_expiry": "expires_at", "commit_order": "key"}
"""What means something together with another argument only."""
_JSON = ("payload", "headers", "target")
_PLACE = re.compile(r"messages\[(\d+)\]: ")


@dataclass(frozen=True, slots=True)
class EnqueueArguments:
    """One message; of messages on standard input what they have in common."""

    topic: Annotated[
        str | None,
        typer.Argument(help="Topic; leave it out to read messages from standard input, one JSON object a line."),
    ] = None
    payload: Annotated[str | None, typer.Argument(help="Payload as JSON.")] = None
    key: Annotated[str | None, typer.Option(help="Key: its messages go one at a time, in order.")] = None
    commit_order: Annotated[
        bool, typer.Option("--commit-order", help="Wait for other producers that use it for this key.")
    ] = False
    tenant: Annotated[str | None, typer.Option(help="The tenant that it belongs to: tenants take turns.")] = None
    headers: Annotated[str | None, typer.Option(help="Headers as a JSON object.")] = None
    target: Annotated[str | None, typer.Option(help="Target as a JSON object: what to do in Temporal.")] = None
    message_id: Annotated[
        UUID | None, typer.Option(parser=words.message_id, metavar="UUID", help="Its id. Default: a new one.")
    ] = None
    dedup_key: Annotated[str | None, typer.Option(help="Add nothing while an unsettled message has this key.")] = None
    dedup_window: Annotated[
        str | None, typer.Option(metavar="INTERVAL", help="And for this time after its delivery. Default: 1 hour.")
    ] = None
    available_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Earliest delivery, as PostgreSQL reads a timestamp.")
    ] = None
    expires_at: Annotated[str | None, typer.Option(metavar="TIME", help="Not delivered after this time.")] = None
    on_expiry: Annotated[str | None, typer.Option(help="What happens to it then: bury (default) or discard.")] = None
    priority: Annotated[int | None, typer.Option(help="0 to 9. Default: 0.", min=0, max=9)] = None


@with_options
def enqueue(message: EnqueueArguments) -> None:
    """Enqueue messages in one transaction and print their ids.

    A line on standard input is an object with the names of the SQL function's parameters:
    {"topic": "orders", "payload": {"id": 1}}. All lines are enqueued, or none.
    """
    given = {name: value for name, value in asdict(message).items() if value is not None and value is not False}
    messages, places = _lines(given) if message.topic is None else ([_message(given)], [""])
    try:
        ids = ask_store(Enqueuing, lambda outbox: outbox.enqueue_many(orjson.dumps(messages)))
    except DatabaseRefused as error:
        # As the person has written them, not as the array in which they were sent.
        text = _PLACE.sub(lambda match: places[int(match[1])], str(error))
        raise DatabaseRefused(text, sqlstate=error.sqlstate) from error
    try:
        sys.stdout.writelines(f"{enqueued}\n" for enqueued in ids)
        sys.stdout.flush()
    except OSError as error:
        raise OutboxError(
            f"{len(ids)} messages are enqueued, and their ids cannot be printed: {error.strerror}"
        ) from error


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    """The one message of the arguments. Raises ConfigurationError."""
    faults = [
        f"{_option(name)} means nothing without {_option(other)}"
        for name, other in _NEEDS.items()
        if name in given and other not in given
    ]
    if given.get("on_expiry", "bury") not in ("bury", "discard"):
        faults.append(f"--on-expiry is {given['on_expiry']!r}: use bury or discard")
    if faults:
        raise ConfigurationError(*faults)
    return {name: _fragment(value, name) if name in _JSON else value for name, value in given.items()}


def _lines(given: Mapping[str, Any]) -> tuple[list[orjson.Fragment], list[str]]:
    """The messages on standard input, and what to call each. Raises ConfigurationError."""
    if given:
        options = ", ".join(map(_option, given))
        raise ConfigurationError(f"{options}: without a topic, messages are read from standard input and say it there")
    if sys.stdin.isatty():
        sys.stderr.write("outbox: write one JSON object a line, then Ctrl-D; see `outbox enqueue --help`\n")
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(sys.stdin.buffer, 1)]
    # Fragments: the database gets the payloads as they were written, not as Python reads numbers.
    messages = [(_fragment(line, place), f"{place}: ") for place, line in lines if line]
    return [message for message, _ in messages], [place for _, place in messages]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _fragment(text: str | bytes, where: str) -> orjson.Fragment:
    """Checked JSON that will be written exactly as it was read."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}") from error
    return orjson.Fragment(text)
