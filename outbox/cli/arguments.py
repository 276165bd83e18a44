"""Reads what people type as arguments of commands. A mistake is one line that shows how to write it."""

from __future__ import annotations

import re
from uuid import UUID

from outbox.model.errors import ConfigurationError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_LONGEST_S = 100 * 365 * 86_400.0


def duration_s(text: str) -> float:
    """Seconds from 90s, 15m, 2h, 3d, 1w or several in a row. Raises ConfigurationError."""
    lowered = text.lower()
    if not _DURATION.fullmatch(lowered):
        raise ConfigurationError(f"{text!r} is no duration: write it as 90s, 15m, 2h, 3d, 1w or 1d12h")
    seconds = sum(float(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[\d.]+[smhdw]", lowered))
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
    if text not in ("rejected", "exhausted", "quarantined", "expired"):
        raise ConfigurationError(f"reason is {text!r}: use rejected, exhausted, quarantined or expired")
    return text
