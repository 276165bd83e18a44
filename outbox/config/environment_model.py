"""Settings as pydantic models: the names of their fields in the environment, their values there, and every fault.

Faults use those names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, SecretStr, ValidationError

from outbox.postgres.address import Environment, Faults, Given

PREFIX = "OUTBOX_"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedModel(Generic[M]):
    """What was read of a model."""

    settings: M
    """With the default in place of each value that cannot be used."""
    origins: Mapping[str, str]
    """Where each field comes from, unless it is the default."""
    wrong: frozenset[str]
    """The fields that cannot be used."""


def named(prefix: str) -> ConfigDict:
    """How a model of settings is configured: a field is called the prefix and its name, or as its alias says."""
    alias = AliasGenerator(validation_alias=lambda field: prefix + field.upper())
    return ConfigDict(alias_generator=alias, frozen=True, extra="ignore", hide_input_in_errors=True)


def names(model: type[BaseModel], field: str) -> tuple[str, ...]:
    """The environment variables of a field, first the one that people would write."""
    alias = model.model_fields[field].validation_alias
    assert alias is not None, f"{model.__name__} is not configured by `named`"
    return tuple(map(str, alias.choices)) if isinstance(alias, AliasChoices) else (str(alias),)


def environment_name(model: type[BaseModel], field: str) -> str:
    """The environment variable of a field, as a person would write it."""
    return names(model, field)[0]


def load(model: type[M], **flags: object) -> M:
    """Read a model from this process's environment. Raises ConfigurationError that names every fault at once."""
    faults = Faults()
    found = read(model, Environment(os.environ), faults, flags)
    faults.settle()
    return found.settings


def read(model: type[M], environment: Environment, faults: Faults, flags: Mapping[str, object]) -> LoadedModel[M]:
    """Read all fields, also faulty ones. `flags` are the command line's by field, None if not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    origins = {name: f"flag --{name.replace('_', '-')}" for name in given}
    spoken = {name: names(model, name)[0] for name in model.model_fields}
    unread = set(model.model_fields) - given.keys()
    for name in sorted(unread):
        with faults:
            found = _found(model, name, environment)
            unread.remove(name)
            if found:
                given[name], origins[name], spoken[name] = found.value, found.origin, found.name
    settings, wrong = _validated(model, given, spoken, faults)
    return LoadedModel(settings, origins, frozenset(wrong | unread))


def _found(model: type[BaseModel], field: str, environment: Environment) -> Given | None:
    """What the environment says of a field. Names of our own count more than those that others read too."""
    ordered = sorted(names(model, field), key=lambda name: not name.startswith(PREFIX))
    if is_secret(model, field):  # may stand in a file
        return environment.find(*ordered)
    return next(filter(None, map(environment.variable, ordered)), None)


def is_secret(model: type[BaseModel], field: str) -> bool:
    """Whether a field must not be shown."""
    annotation = model.model_fields[field].annotation
    return SecretStr in (annotation, *get_args(annotation))


def _validated(
    model: type[M], given: Mapping[str, object], spoken: Mapping[str, str], faults: Faults
) -> tuple[M, set[str]]:
    """The model of what was given, and the fields that cannot be used, which have their defaults.

    `spoken` are the names of fields in messages.
    """
    by_key = {names(model, field)[0]: field for field in model.model_fields}
    values = {key: given[field] for key, field in by_key.items() if field in given}
    wrong: set[str] = set()
    try:
        return model.model_validate(values), wrong
    except ValidationError as error:
        for fault in error.errors():
            field = by_key[str(fault["loc"][0])]
            wrong.add(field)
            shown = "" if is_secret(model, field) else f" is {fault['input']!r}"
            faults.found.append(_fault(spoken[field], shown, str(fault["msg"])))
    sound = {key: value for key, value in values.items() if by_key[key] not in wrong}
    return model.model_validate(sound), wrong


def _fault(name: str, shown: str, message: str) -> str:
    """One of pydantic's findings, in a line. `shown` is the value, if it may be shown."""
    text = message.removeprefix("Value error, ")
    return text if name in text else f"{name}{shown}: {text[:1].lower()}{text[1:]}"


def is_web_address(text: str) -> bool:
    """Whether a text is one of HTTP's or a websocket's addresses."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname)


def without_credentials(url: str) -> str:
    """A web address without the credentials that it may contain."""
    return re.sub(r"//[^/]*@", "//", url)
