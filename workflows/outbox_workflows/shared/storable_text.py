"""Texts that PostgreSQL can keep. JSON can say more: NUL, and half of a character as JavaScript's `slice` leaves it."""

from __future__ import annotations

from typing import Any

_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text with what PostgreSQL does not take replaced."""
    return text.encode("utf-8", "replace").decode().replace("\0", _INSTEAD)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes the text as it is."""
    return storable(text) == text


def storable_json(value: Any) -> Any:  # noqa: ANN401 - JSON is what it is
    """A JSON value with the same done to each text in it."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(name): storable_json(each) for name, each in value.items()}
        case list() | tuple():
            return [storable_json(each) for each in value]
        case _:
            return value
