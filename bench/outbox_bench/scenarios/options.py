"""Options of a scenario: each declared once, with its default, its help and its value in a brief run."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: T, text: str = "", *, brief: T | None = None) -> T:
    """A field of a dataclass of options. `brief` is its value for a smoke test, where that is another."""
    made: Any = field(default=default, metadata={"help": text, "brief": default if brief is None else brief})
    return made  # type: ignore[no-any-return]  # as dataclasses.field claims to return its default


def brief(kind: type[T]) -> T:
    """The options of a smoke test."""
    return kind(**{each.name: each.metadata["brief"] for each in fields(kind)})  # type: ignore[arg-type]
