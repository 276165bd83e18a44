"""The adapter's own settings. Where Temporal is, and how to get in, is said by Temporal's variables and profiles."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ImportString, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from temporalio.converter import DataConverter, PayloadCodec

from outbox.errors import ConfigurationError


def _made(reference: object) -> object:
    """A referenced object, or what it makes where it is a class or function."""
    return reference() if callable(reference) else reference


class TemporalSettings(BaseSettings):
    """What `OUTBOX_TEMPORAL_…` variables say."""

    model_config = SettingsConfigDict(
        env_prefix="OUTBOX_TEMPORAL_", frozen=True, extra="ignore", env_ignore_empty=True, arbitrary_types_allowed=True
    )

    task_queue: str | None = Field(None, description="Task queue of starts that name none.")
    data_converter: ImportString[Any] | None = Field(
        None, description="Your data converter, module:attribute: a DataConverter or what makes one."
    )
    payload_codec: ImportString[Any] | None = Field(
        None, description="Your payload codec, module:attribute: a PayloadCodec or what makes one, for encryption."
    )
    compression: Annotated[Literal["auto", "none", "gzip"], BeforeValidator(str.lower)] = Field(
        "auto", description="Compression of requests; auto is gzip over TLS and none in the clear."
    )

    def converter(self) -> DataConverter:
        """The data converter to use. Raises ConfigurationError where a reference names something else."""
        converter = DataConverter.default if self.data_converter is None else _made(self.data_converter)
        if not isinstance(converter, DataConverter):
            raise ConfigurationError("OUTBOX_TEMPORAL_DATA_CONVERTER names no temporalio.converter.DataConverter")
        if self.payload_codec is None:
            return converter
        codec = _made(self.payload_codec)
        if not isinstance(codec, PayloadCodec):
            raise ConfigurationError("OUTBOX_TEMPORAL_PAYLOAD_CODEC names no temporalio.converter.PayloadCodec")
        return dataclasses.replace(converter, payload_codec=codec)


def load() -> TemporalSettings:
    """Read the environment. Raises ConfigurationError that names every fault."""
    try:
        return TemporalSettings()
    except ValidationError as error:
        faults = [f"OUTBOX_TEMPORAL_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError(*faults) from error
