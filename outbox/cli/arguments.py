"""Reads what people type as arguments of commands. A mistake is one line that shows how to write it."""

from __future__ import annotations

from uuid import UUID

from outbox.model.dead_letter_reason import DEAD_LETTER_REASONS
from outbox.model.duration import HOW, seconds_of
from outbox.model.errors import ConfigurationError

REASONS = f"{', '.join(DEAD_LETTER_REASONS[:-1])} or {DEAD_LETTER_REASONS[-1]}"
"""Of a dead letter, for people."""
_LONGEST_S = 100 * 365 * 86_400.0


def duration_s(text: str) -> float:
    """Seconds from 90s, 15m, 2h, 3d, 1w or several in a row. Raises ConfigurationError."""
    seconds = seconds_of(text)
    if seconds is None:
        raise ConfigurationError(f"{text!r} is no duration: {HOW}")
    if seconds > _LONGEST_S:
        raise ConfigurationError(f"{text!r} is too long: a hundred years are the limit")
    return seconds


def message_id(text: str) -> UUID:
    """A message id. Raises ConfigurationError."""
    try:
        return UUID(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no message id: it is a UUID, as `outbox dead list` and `outbox enqueue` print it"
        ) from None


def reason(text: str) -> str:
    """A reason of a dead letter. Raises ConfigurationError."""
    if text not in DEAD_LETTER_REASONS:
        raise ConfigurationError(f"reason is {text!r}: use {REASONS}")
    return text
