"""The sink by its reference, module:attribute: how the core finds what it does not import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from outbox.config.reference import load_reference
from outbox.model.errors import ConfigurationError
from outbox.model.sink import SinkFactory

_MOVED = {"workflows.sink:temporal_sink": "outbox_temporal.sink:temporal_sink"}


def current(reference: str) -> str:
    """The reference under its present name. An old one still works."""
    return _MOVED.get(reference, reference)


def moved(reference: str) -> Iterator[str]:
    """A warning if the reference is an old name."""
    if reference in _MOVED:
        yield f"OUTBOX_SINK is {reference!r}, an old name that still works: write {current(reference)}"


def load_sink(reference: str) -> SinkFactory:
    """Import the sink factory that `module:attribute` names. Raises ConfigurationError with the cause."""
    module_name, _, attribute = current(reference).partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"OUTBOX_SINK is {reference!r}: write it as module:attribute")
    try:
        factory = load_reference(current(reference))
    except ValueError as error:
        raise ConfigurationError(f"OUTBOX_SINK is {reference!r}: {error}") from error
    if not callable(factory):
        raise ConfigurationError(f"OUTBOX_SINK is {reference!r}: {attribute} cannot be called")
    return cast("SinkFactory", factory)
