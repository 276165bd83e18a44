"""Options as dataclasses: a command takes one value for all of them, and several commands may share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_args, get_type_hints

from typer.models import ParameterInfo


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with typer's options for the fields of each parameter that is a dataclass.

    A field's type is `Annotated` with `typer.Option`. An option that has a parser, and is not given, has the field's
    default as it is.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    @wraps(command)
    def expanded(**given: object) -> None:
        for name, kind in groups.items():
            values = {field.name: given.pop(field.name) for field in fields(kind)}
            given[name] = kind(**{name: value for name, value in values.items() if value is not None})
        command(**given)

    parameters = list(_parameters(signature(command), hints))
    expanded.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _parameters(of: Signature, hints: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in of.parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            yield parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind)
            continue
        types = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = _default(field, types[field.name])
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])


def _default(field: Field[Any], annotation: object) -> object:
    [info] = [part for part in get_args(annotation) if isinstance(part, ParameterInfo)]
    if info.parser is not None:  # it would parse the default, too
        return None
    return field.default if field.default_factory is MISSING else field.default_factory()
