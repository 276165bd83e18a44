"""The adapter's own settings. Where Temporal is, and how to get in, is said by Temporal's variables and profiles."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field
from temporalio.converter import DataConverter, PayloadCodec

from outbox.config import environment_model as fields
from outbox.config.reference import explained, load_reference
from outbox.model.errors import ConfigurationError
from outbox_temporal.target.target import NEEDS, SYSTEM_NAMESPACE

_CONVERTER = "OUTBOX_TEMPORAL_DATA_CONVERTER"
_CODEC = "OUTBOX_TEMPORAL_PAYLOAD_CODEC"
_DEFAULT_ROUTES = Path("outbox.toml")


def _made(name: str, reference: object) -> object:
    """A referenced object, or what it makes where it is a class or function. Raises ConfigurationError for `name`."""
    try:
        return reference() if callable(reference) else reference
    except Exception as error:
        raise ConfigurationError(f"{name}: calling what it names raised {explained(error)}") from error


def _listed(text: object) -> object:
    return [name.strip() for name in text.split(",") if name.strip()] if isinstance(text, str) else text


def _operations(names: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in NEEDS]:
        raise ValueError(f"{unknown[0]} is no operation: use {', '.join(NEEDS)}")
    return names


def _namespaces(names: list[str]) -> list[str]:
    if SYSTEM_NAMESPACE in names:
        raise ValueError(f"{SYSTEM_NAMESPACE} is Temporal's own, and never allowed: take it out")
    return names


Names = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
"""Names with commas between; one may end in `*`, which matches the rest."""


Reference = Annotated[Any, BeforeValidator(load_reference)]


class TemporalSettings(BaseModel):
    """What the adapter's variables say."""

    model_config = fields.named("OUTBOX_TEMPORAL_")

    task_queue: str | None = Field(None, description="Task queue of starts that name none.")
    data_converter: Reference | None = Field(
        None, description="Your data converter, module:attribute: a DataConverter or what makes one."
    )
    payload_codec: Reference | None = Field(
        None, description="Your payload codec, module:attribute: a PayloadCodec or what makes one, for encryption."
    )
    compression: Annotated[Literal["auto", "none", "gzip"], BeforeValidator(str.lower)] = Field(
        "auto", description="Compression of requests; auto is gzip over TLS and none in the clear."
    )
    routes: Path | None = Field(
        None,
        validation_alias=AliasChoices("OUTBOX_ROUTES"),
        description="File of routes from topics to targets; default: outbox.toml in the working directory, if any.",
    )
    unroutable: Annotated[Literal["bury", "leave"], BeforeValidator(str.lower)] = Field(
        "bury",
        validation_alias=AliasChoices("OUTBOX_UNROUTABLE"),
        description="What becomes of a message that has no target and finds none: bury it, or leave it for later.",
    )

    allowed_namespaces: Annotated[Names, AfterValidator(_namespaces)] | None = Field(
        None,
        description="Namespaces that messages and routes may name beside the worker's own: names with commas between, "
        "`tenant-*` for all that begin so, `*` for all. Never Temporal's own.",
    )
    allowed_operations: Annotated[Names, AfterValidator(_operations)] | None = Field(
        None, description="Operations that messages and routes may ask for; default: all five."
    )
    allowed_workflows: Names | None = Field(
        None, description="Workflow types that may be started, listed like the namespaces; default: all."
    )
    allowed_task_queues: Names | None = Field(
        None, description="Task queues that a start may name, listed like the namespaces; default: all."
    )

    def routes_file(self) -> Path | None:
        """The file of routes, if there is one. A file that is named need not exist: reading it finds out."""
        return routes_file(self.routes)

    def converter(self) -> DataConverter:
        """The data converter to use. Raises ConfigurationError where a reference names something else."""
        converter = DataConverter.default if self.data_converter is None else _made(_CONVERTER, self.data_converter)
        if not isinstance(converter, DataConverter):
            raise ConfigurationError(f"{_CONVERTER} names no temporalio.converter.DataConverter")
        if self.payload_codec is None:
            return converter
        codec = _made(_CODEC, self.payload_codec)
        if not isinstance(codec, PayloadCodec):
            raise ConfigurationError(f"{_CODEC} names no temporalio.converter.PayloadCodec")
        return dataclasses.replace(converter, payload_codec=codec)


def load() -> TemporalSettings:
    """Read the environment. Raises ConfigurationError that names every fault."""
    return fields.load(TemporalSettings)


def routes_file(named: Path | str | None) -> Path | None:
    """The file that was named, else the one in the working directory, if any."""
    return Path(named) if named else _DEFAULT_ROUTES if _DEFAULT_ROUTES.exists() else None


environment_name = partial(fields.environment_name, TemporalSettings)
"""The environment variable of a field, as a person would write it."""
