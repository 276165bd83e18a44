"""The arguments of workflows: JSON of any origin, read into a family's types, or refused with a clear message. Pure.

Definitions take their arguments as they come, `*given: object`, and read them here. With types, Temporal's SDK would
convert them. If it cannot convert an argument, the workflow's task fails again and again, or the signal is lost. Faults
name fields and never repeat values, which may be secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from types import NoneType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from temporalio.exceptions import ApplicationError

T = TypeVar("T")
_MOST_FAULTS = 10
"""Faults that are reported at once. A list of a thousand wrong entries has one cause."""
_TOO_DEEP = "the argument is nested too deeply"
_WANTED = {
    "string_type": "a text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "dataclass_type": "an object",
}
"""By pydantic's name of the fault."""
_FOUND = {NoneType: "null", str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}


class Misfit(ValueError):
    """What was given does not have the form of what is wanted. `faults` say so, a line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


def read(kind: type[T], given: Sequence[object]) -> T:
    """Return the one argument as this dataclass; fields that it does not have are left out. Raises Misfit."""
    if len(given) != 1:
        raise Misfit([f"one JSON object is expected, not {len(given)} arguments"])
    try:
        text = json.dumps(given[0], default=str, ensure_ascii=False)
        utf8 = text.encode("utf-8", "replace")  # half a character becomes a ?
        found: T = _adapter(kind).validate_json(utf8, strict=True)  # type: ignore[arg-type]  # a type is hashable
    except RecursionError:
        raise Misfit([_TOO_DEEP]) from None
    except ValidationError as error:
        raise Misfit([_fault(each) for each in error.errors(include_url=False)[:_MOST_FAULTS]]) from None
    return found


def begun(kind: type[T], given: Sequence[object], faults: Callable[[T], list[str]]) -> tuple[T, list[str]]:
    """A workflow's request and its faults. A request that cannot be read is replaced by an empty one."""
    try:
        request = read(kind, given)
    except Misfit as misfit:
        return kind(), misfit.faults
    return request, faults(request)


def faults_before(argument: T, faults: Callable[[T], list[str]]) -> list[str]:
    """What `begun` would find wrong with an argument, for producers, before they write it down."""
    try:
        read(type(argument), [asdict(argument)])  # type: ignore[call-overload]  # a family's words are dataclasses
    except Misfit as misfit:
        return misfit.faults
    return faults(argument)


def refuse(faults: Sequence[str]) -> None:
    """Fail the workflow for its faults, if it has any."""
    if faults:
        raise ApplicationError("; ".join(faults), type="InvalidRequest", non_retryable=True)


def command_id_of(given: Sequence[object]) -> str:
    """The id of a command that may have no other field that can be read."""
    first = given[0] if given else None
    command_id = first.get("command_id") if isinstance(first, dict) else None
    return command_id if isinstance(command_id, str) and command_id else "unknown"


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _fault(details: ErrorDetails) -> str:
    """What does not fit, in one line."""
    if details["type"] == "json_invalid":
        return _TOO_DEEP
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"]).removeprefix(".")
    name = name or "the argument"
    if details["type"] == "missing":
        return f"{name} is missing"
    if details["type"] == "literal_error":
        return f"{name} must be one of {details['ctx']['expected']}"
    found: Any = details["input"]
    return (
        f"{name} must be {_WANTED.get(details['type'], 'of another form')}, not {_FOUND.get(type(found), 'an object')}"
    )
