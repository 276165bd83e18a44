"""Turns dataclasses into command-line options: a scenario declares its options once, without typer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer


def with_options(function: Callable[[dict[str, dict[str, Any]]], None], **groups: type[Any]) -> Callable[..., None]:
    """A command with an option for each field of these dataclasses.

    It calls `function` with those that were given, by group and field.
    """
    owners = {field.name: group for group, kind in groups.items() for field in fields(kind)}

    def command(**values: object) -> None:
        given: dict[str, dict[str, Any]] = {group: {} for group in groups}
        for name, value in values.items():
            if value is not None:
                given[owners[name]][name] = value
        function(given)

    parameters = [parameter for kind in groups.values() for parameter in _parameters(kind)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameters(kind: type[Any]) -> list[inspect.Parameter]:
    """A parameter with typer's annotation for each field. Its default is None, which means: not given."""
    hints = get_type_hints(kind)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(field, hints[field.name]),
        )
        for field in fields(kind)
    ]


def _annotation(field: Field[Any], hint: object) -> object:
    text, flag = field.metadata["help"], "--" + field.name.removesuffix("_s").replace("_", "-")
    shown = _shown(field.default) if field.default not in (None, False) else False
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]

        def parse(given: str) -> tuple[Any, ...]:
            return tuple(element(part.strip().replace("_", "")) for part in given.split(","))

        option = typer.Option(flag, help=text, show_default=shown, parser=parse, metavar="N,N,…")
        return Annotated[Any, option]
    return Annotated[hint | None, typer.Option(flag, help=text, show_default=shown)]  # type: ignore[operator]


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
