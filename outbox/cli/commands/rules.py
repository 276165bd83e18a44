"""The commands `outbox pause`, `resume` and `limit`: rules for every worker, until they are lifted."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outbox.cli.session import ask_store
from outbox.model.errors import ConfigurationError
from outbox.model.message import Pause
from outbox.store.rules import Rules

_LARGEST_BURST = 1_000_000
Topic = Annotated[str | None, typer.Option(help="Only this topic, or prefix.* for all that begin with it.")]
Key = Annotated[str | None, typer.Option(help="Only messages with this key.")]


def pause(topic: Topic = None, key: Key = None) -> None:
    """Deliver nothing, or nothing of a topic or key, until resumed.

    Enqueueing goes on.
    """
    what = _what(topic, key)
    ask_store(Rules, lambda rules: rules.pause(what))
    sys.stdout.write(f"paused: {_words(what)}\n")


def resume(topic: Topic = None, key: Key = None) -> None:
    """End a pause. `outbox status` lists them."""
    what = _what(topic, key)
    if not ask_store(Rules, lambda rules: rules.resume(what)):
        raise ConfigurationError(f"not paused: {_words(what)}; `outbox status` shows what is")
    sys.stdout.write(f"resumed: {_words(what)}\n")


def limit(
    topic: Annotated[str, typer.Argument(help="A topic, or prefix.* for all that begin with it, together.")],
    rate: Annotated[float | None, typer.Argument(help="Messages a second, across all workers.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Messages at once. Default: one second's worth.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Lift the limit.")] = False,
) -> None:
    """Bound how many messages of a topic are delivered a second."""
    if (rate is None) != off:
        raise ConfigurationError("give a rate in messages a second, or --off to lift the limit, and not both")
    if burst is not None and burst > _LARGEST_BURST:
        raise ConfigurationError(f"--burst is {burst}, the limit is {_LARGEST_BURST}")
    was_limited = ask_store(Rules, lambda rules: rules.limit_topic(topic, rate, burst))
    if off and not was_limited:
        raise ConfigurationError(f"not limited: {topic}; `outbox status` shows what is")
    sys.stdout.write(f"not limited any more: {topic}\n" if off else f"limited: {topic} to {rate:g} a second\n")


def _what(topic: str | None, key: str | None) -> Pause:
    if "" in (topic, key):
        raise ConfigurationError("--topic and --key must not be empty; leave both out to pause everything")
    if topic is not None and key is not None:
        raise ConfigurationError("give --topic or --key, not both")
    return Pause(topic, key)


def _words(what: Pause) -> str:
    if what.topic is not None:
        return f"topic {what.topic}"
    return "everything" if what.key is None else f"key {what.key}"
