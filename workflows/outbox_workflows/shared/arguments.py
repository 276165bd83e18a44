"""What workflows are given: JSON from anywhere, read into a family's words, or refused in words of its own. Pure.

Definitions take their arguments as they come, `*given: object`, and read them here. Were they typed, Temporal's SDK
would convert them, and what it cannot convert fails the workflow's task again and again, or is a signal that nothing
hears of. Faults name fields and never repeat values, which may be secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from itertools import islice
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError

T = TypeVar("T")
_MOST_FAULTS = 10
"""Faults that are reported at once. A list of a thousand wrong entries has one cause."""
_WANTED = {str: "a text", float: "a number", int: "a whole number", bool: "true or false"}
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
    if faults := _misfits(kind, given[0]):
        raise Misfit(faults)
    found: T = value_to_type(kind, given[0])
    return found


def begun(kind: type[T], given: Sequence[object], faults: Callable[[T], list[str]]) -> tuple[T, list[str]]:
    """A workflow's request and what is wrong with it. In place of one that cannot be read stands an empty one."""
    try:
        request = read(kind, given)
    except Misfit as misfit:
        return kind(), misfit.faults
    return request, faults(request)


def faults_before(argument: T, faults: Callable[[T], list[str]]) -> list[str]:
    """What `begun` would find wrong with an argument, for producers, before they write it down."""
    plain: dict[str, object] = asdict(argument)  # type: ignore[call-overload]  # a family's words are dataclasses
    return _misfits(type(argument), plain) or faults(argument)


def refuse(faults: Sequence[str]) -> None:
    """Fail the workflow for its faults, if it has any."""
    if faults:
        raise ApplicationError("; ".join(faults), type="InvalidRequest", non_retryable=True)


def command_id_of(given: Sequence[object]) -> str:
    """The id of a command that may have no other field that can be read."""
    first = given[0] if given else None
    command_id = first.get("command_id") if isinstance(first, dict) else None
    return command_id if isinstance(command_id, str) and command_id else "unknown"


def _misfits(kind: Any, value: object) -> list[str]:  # noqa: ANN401 - a type hint
    return list(islice(_look(kind, value, ""), _MOST_FAULTS))


def _look(kind: Any, value: object, name: str) -> Iterator[str]:  # noqa: ANN401 - a type hint
    """Go through a value beside the hint of its type."""
    inner, optional = _without_null(kind)
    if value is None and optional:
        return
    if is_dataclass(inner):
        yield from _look_into(inner, value, name)
    elif get_origin(inner) is list and isinstance(value, list):
        for place, each in enumerate(value):
            yield from _look(get_args(inner)[0], each, f"{name}[{place}]")
    elif get_origin(inner) is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from _look(get_args(inner)[1], each, f"{name}.{key}")
    elif get_origin(inner) in (list, dict) or not _fits(inner, value):  # the converter makes a list of a text
        yield f"{name} must be {_wanted(inner)}{' or null' if optional else ''}, not {_found(value)}"


def _look_into(kind: Any, value: object, name: str) -> Iterator[str]:  # noqa: ANN401 - a dataclass
    if not isinstance(value, dict):
        yield f"{name or 'the argument'} must be an object, not {_found(value)}"
        return
    hints = get_type_hints(kind)
    for field in fields(kind):
        path = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            yield from _look(hints[field.name], value[field.name], path)
        elif _required(field):
            yield f"{path} is missing"


def _fits(kind: Any, value: object) -> bool:  # noqa: ANN401 - a type hint
    if isinstance(value, bool) and kind in (int, float):  # of which the converter would make a number
        return False
    try:
        value_to_type(kind, value)
    except Exception:  # noqa: BLE001 - the converter may raise anything: its documentation does not say
        return False
    return True


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _without_null(kind: Any) -> tuple[Any, bool]:  # noqa: ANN401 - type hints
    """A type hint without None, and whether it had it."""
    if get_origin(kind) not in (Union, UnionType):
        return kind, False
    rest = [each for each in get_args(kind) if each is not NoneType]
    return (rest[0] if len(rest) == 1 else kind), len(rest) < len(get_args(kind))


def _wanted(kind: Any) -> str:  # noqa: ANN401 - a type hint
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return {list: "a list", dict: "an object"}.get(get_origin(kind)) or _WANTED.get(kind, "of another form")


def _found(value: object) -> str:
    return _FOUND.get(type(value), "an object")
