"""A model's fields: their names in the environment, their values there, and what pydantic finds, told by those names.

A field is called OUTBOX_ and its name, or as its alias says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError

from outbox.connection import Environment, Faults, Given

PREFIX = "OUTBOX_"
M = TypeVar("M", bound=BaseModel)


def names(model: type[BaseModel], field: str) -> tuple[str, ...]:
    """The environment variables of a field, first the one that people would write."""
    alias = model.model_fields[field].validation_alias
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (PREFIX + field.upper(),)


def found(model: type[BaseModel], field: str, environment: Environment) -> Given | None:
    """What the environment says of a field. Names of our own count more than those that others read too."""
    ordered = sorted(names(model, field), key=lambda name: not name.startswith(PREFIX))
    if is_secret(model, field):  # may stand in a file
        return environment.find(*ordered)
    return next(filter(None, map(environment.variable, ordered)), None)


def is_secret(model: type[BaseModel], field: str) -> bool:
    """Whether a field must not be shown."""
    return SecretStr in get_args(model.model_fields[field].annotation)


def validated(
    model: type[M], given: Mapping[str, object], spoken: Mapping[str, str], faults: Faults
) -> tuple[M, set[str]]:
    """The model of what was given, and the fields that cannot be used, which have their defaults.

    `spoken` are the names by which to tell of fields.
    """
    by_key = {_key(model, field): field for field in model.model_fields}
    values = {key: given[field] for key, field in by_key.items() if field in given}
    wrong: set[str] = set()
    try:
        return model.model_validate(values), wrong
    except ValidationError as error:
        for fault in error.errors():
            field = by_key[str(fault["loc"][0])]
            wrong.add(field)
            faults.found.append(_fault(spoken[field], str(fault["msg"]), fault["input"]))
    sound = {key: value for key, value in values.items() if by_key[key] not in wrong}
    return model.model_validate(sound), wrong


def _key(model: type[BaseModel], field: str) -> str:
    """What pydantic calls a field where it reads it."""
    alias = model.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field


def _fault(name: str, message: str, value: object) -> str:
    """One of pydantic's findings, in a line."""
    text = message.removeprefix("Value error, ")
    return text if name in text else f"{name} is {value!r}: {text[:1].lower()}{text[1:]}"


def is_web_address(text: str) -> bool:
    """Whether a text is one of HTTP's or a websocket's addresses."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)


def without_credentials(url: str) -> str:
    """A web address without the credentials that somebody may have put into it."""
    return re.sub(r"//[^/]*@", "//", url)
