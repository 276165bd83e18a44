"""Settings from the environment, checked as a whole.

Every fault is found before anything starts, and named with its setting. Field descriptions are the reference that
`docs/configuration.md` is tested against. How the worker gets to its database is `outbox/postgres/address/`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal, cast

from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, SecretStr, field_validator

from outbox.config import environment_model as fields
from outbox.config.sink_reference import load_sink, moved
from outbox.model.errors import ConfigurationError
from outbox.model.schema_name import validated_schema
from outbox.postgres.address import Address, Environment, Faults, database, listening
from outbox.postgres.address.address import retired_lines, unknown_parameters, variables
from outbox.postgres.address.environment import FILE, from_file
from outbox.relay.settings import LEASE_MARGIN_S, RelaySettings
from outbox.wakeup.phoenix import Via
from outbox.wakeup.realtime import RealtimeSettings
from outbox.wakeup.selection import Mode
from outbox.wakeup.token import Token

__all__ = ["LoadedSettings", "Settings", "environment_name", "load", "load_sink", "read"]


class PlaceSettings(BaseModel):
    """Where messages come from and go to, and what wakes the worker."""

    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "OUTBOX_DATABASE_URL"),
        description="PostgreSQL connection string, postgresql://user:password@host:port/database.",
    )
    schema_name: str = Field(
        "outbox",
        validation_alias=AliasChoices("OUTBOX_SCHEMA"),
        description="Schema of the outbox's tables and functions.",
    )
    sink: str = Field(
        "outbox_temporal.sink:temporal_sink", description="Where messages go: module:attribute of a sink factory."
    )
    mode: Mode = Field(
        "auto",
        description="What wakes the worker besides polling: auto, listen, realtime or poll; see `outbox mode`.",
    )
    listen_url: SecretStr | None = Field(
        None, description="Where to LISTEN, if DATABASE_URL leads through a pooler in transaction mode."
    )
    supabase_url: str | None = Field(
        None,
        validation_alias=AliasChoices("SUPABASE_URL"),
        description="Supabase's address, https://<project>.supabase.co; self-hosted: the socket's own, with its path.",
    )
    supabase_service_role_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("SUPABASE_SERVICE_ROLE_KEY"),
        description="Supabase's service role key. Another role's key needs SELECT on the message table, and a policy.",
    )
    realtime_via: Via = Field(
        "postgres_changes", description="How Realtime reports commits: postgres_changes or broadcast."
    )
    realtime_private: bool = Field(
        default=False,
        description="Join a private channel for postgres_changes too; a private-only project takes no other.",
    )
    realtime_token_file: str | None = Field(
        None, description="File with Realtime's access token, read again before the token expires."
    )
    realtime_token_command: str | None = Field(
        None, description="Command that prints Realtime's access token, run again before the token expires."
    )
    worker_name: str = Field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}",
        description="Name of this worker in logs, in the database, and towards the sink. Default: host:pid.",
    )


class Settings(RelaySettings, PlaceSettings):
    """Everything that can be set. Durations are seconds; a name with prefix is the environment variable."""

    model_config = fields.named(fields.PREFIX)

    history: bool = Field(default=True, description="Whether delivered messages are kept in the history table.")
    history_days: int = Field(30, ge=1, le=3650, description="Days of history to keep.")
    http_host: str = Field(
        "*", description="Address to serve health and metrics at; * is every one that the machine has."
    )
    http_port: int = Field(0, ge=0, le=65_535, description="Port to serve health and metrics at; 0 serves none.")
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias=AliasChoices("LOG_LEVEL", "OUTBOX_LOG_LEVEL"), description="Least severe log line."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Log lines for people or for machines; auto is text on a terminal, json elsewhere."
    )

    _environment: Environment = PrivateAttr()
    _database: Address = PrivateAttr()
    _listening: Address | None = PrivateAttr(default=None)

    @field_validator("schema_name")
    @classmethod
    def _check_schema(cls, schema: str) -> str:
        try:
            return validated_schema(schema)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    def incoherent(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Every fault of settings that are right by themselves, each with the fields that have part in it."""
        yield from self._faults_of_leases()
        yield from self._faults_of_realtime()

    def _faults_of_leases(self) -> Iterator[tuple[tuple[str, ...], str]]:
        least_s = self.deliver_timeout_s + 2 * LEASE_MARGIN_S
        if self.lease_s < least_s:
            fault = (
                f"OUTBOX_LEASE_S is {self.lease_s:g}, but a delivery may take OUTBOX_DELIVER_TIMEOUT_S "
                f"({self.deliver_timeout_s:g}): make the lease at least {least_s:g}"
            )
            yield ("lease_s", "deliver_timeout_s"), fault
        if self.max_deliveries <= self.suspect_after:
            fault = (
                f"OUTBOX_MAX_DELIVERIES ({self.max_deliveries}) must be greater than OUTBOX_SUSPECT_AFTER "
                f"({self.suspect_after}): a message is proved a killer by dying alone"
            )
            yield ("max_deliveries", "suspect_after"), fault

        if self.retry_base_s > self.retry_cap_s:
            fault = (
                f"OUTBOX_RETRY_BASE_S ({self.retry_base_s:g}), the first pause, must not be longer than "
                f"OUTBOX_RETRY_CAP_S ({self.retry_cap_s:g}), the longest"
            )
            yield ("retry_base_s", "retry_cap_s"), fault

    def _faults_of_realtime(self) -> Iterator[tuple[tuple[str, ...], str]]:
        needed = {"supabase_url": self.supabase_url, "supabase_service_role_key": self.supabase_service_role_key}
        missing = [field for field, value in needed.items() if value is None]
        half = len(missing) < len(needed)
        if missing and (half or self.mode == "realtime"):
            for field in missing:
                yield (
                    (field,) if half else (field, "mode"),
                    f"{environment_name(field)} is not set: Supabase Realtime needs it",
                )
        if not missing and find_spec("websockets") is None:
            yield (), "Supabase Realtime needs an extra: pip install 'temporal-outbox[realtime]'"
        if self.supabase_url is not None and not fields.is_web_address(self.supabase_url):
            shown = fields.without_credentials(self.supabase_url)
            yield ("supabase_url",), f"SUPABASE_URL is {shown!r}: write it as https://<project>.supabase.co"

    @property
    def dsn(self) -> Address:
        """Where the outbox's database is."""
        return self._database

    @property
    def listen_dsn(self) -> Address:
        """The address for sessions that no other client shares: for LISTEN, and to show that the worker lives."""
        return self._listening or self._database

    def realtime(self) -> tuple[RealtimeSettings, Token] | None:
        """What the Realtime source needs; None if it is not configured."""
        if self.supabase_url is None or self.supabase_service_role_key is None:
            return None
        return (
            RealtimeSettings(
                self.supabase_url, self._service_role_key, self.realtime_via, self.schema_name, self.realtime_private
            ),
            Token(self.realtime_token_command, self.realtime_token_file, self._service_role_key),
        )

    def _service_role_key(self) -> str:
        """The key as it is now: its file may be rotated."""
        file = self._environment.variable("SUPABASE_SERVICE_ROLE_KEY_FILE")
        if file is not None:
            return from_file(file).value
        return self.supabase_service_role_key.get_secret_value() if self.supabase_service_role_key else ""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """What was read: settings, and all that is to be said about them."""

    settings: Settings
    """With the default in place of each value that cannot be used."""
    origins: Mapping[str, str]
    """Where each field comes from, unless it is the default."""
    faults: tuple[str, ...]
    doubts: tuple[str, ...]
    """What works, and should not be as it is."""
    retired: frozenset[str]
    """Of the faults and doubts those about variables of former times."""


def load(**overrides: object) -> Settings:
    """Read the environment. Raises ConfigurationError that names every fault at once.

    `overrides` are command-line flags by field name; None means that the flag was not given.
    """
    reading = read(**overrides)
    if reading.faults:
        raise ConfigurationError(*reading.faults)
    return reading.settings


def read(**overrides: object) -> LoadedSettings:
    """Read the environment, and its faults."""
    assert overrides.keys() <= Settings.model_fields.keys(), overrides.keys() - Settings.model_fields.keys()
    environment, faults = Environment(os.environ), Faults()
    found = fields.read(Settings, environment, faults, overrides)
    settings = found.settings
    faults.found += [fault for involved, fault in settings.incoherent() if not found.wrong.intersection(involved)]
    dsn, listen_dsn = (cast("str | None", overrides.get(name)) for name in ("database_url", "listen_url"))
    settings._environment = environment  # noqa: SLF001 - ours, of which a frozen model takes no other notice
    settings._database = database(environment, dsn)  # noqa: SLF001
    settings._listening = listening(environment, settings.dsn, listen_dsn)  # noqa: SLF001
    retired, doubts = retired_lines(environment, settings.dsn)
    former = frozenset((*retired, *doubts))
    for address in dict.fromkeys((settings.dsn, settings.listen_dsn)):
        with faults:
            doubts += [doubt for doubt in address.resolve().doubts() if doubt not in doubts]
    faults.found += retired
    ours = [name for field in Settings.model_fields for name in fields.names(Settings, field)]
    known = {*variables(), *ours, *(name + FILE for name in ours)}
    doubts += [*unknown_parameters(environment), *environment.misspelt(known), *moved(settings.sink)]
    return LoadedSettings(settings, found.origins, tuple(faults), tuple(doubts), former)


environment_name = partial(fields.environment_name, Settings)
"""The environment variable of a field, as a person would write it."""
