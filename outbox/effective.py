"""What is in effect: every setting with its value and where it comes from, and every fault at once, the sink's too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated

import orjson
import typer
from pydantic import SecretStr

from outbox import config
from outbox.connection import Address, Faults, Given
from outbox.connection.url import MASK, masked
from outbox.errors import ConfigurationError
from outbox.fields import without_credentials
from outbox.screens import show_settings
from outbox.sink import Setting, SinkFactory, SinkSettings

GROUP = "outbox.settings"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker needs to start, found without fault."""

    settings: config.Settings
    sink: SinkFactory
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was read, and everything that is wrong with it."""

    reading: config.Reading
    sink: SinkFactory | None
    """None where it cannot be found."""
    faults: tuple[str, ...]
    sink_faults: tuple[str, ...]
    """Of the sink's own settings."""


def survey(**flags: object) -> Survey:
    """Read everything, whatever is wrong with it."""
    reading, faults, factories = config.read(**flags), Faults(), list[SinkFactory]()
    faults.found += reading.faults
    with faults:
        factories.append(config.load_sink(reading.settings.sink))
    if not factories:
        return Survey(reading, None, tuple(faults), ())
    module = reading.settings.sink.partition(":")[0]
    of_sink = [fault for name, read in _sinks() if name == module for fault in read.faults]
    return Survey(reading, factories[0], tuple(faults), tuple(of_sink))


def prepare(**flags: object) -> Prepared:
    """Read everything. Raises ConfigurationError that names every fault of the settings, of the sink and of its own."""
    found = survey(**flags)
    if found.sink is None or found.faults or found.sink_faults:
        raise ConfigurationError(*found.faults, *found.sink_faults)
    return Prepared(found.reading.settings, found.sink, found.reading.doubts)


def config_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every setting in effect, and where it comes from.

    Secrets are masked. Exit 2 if anything is wrong.
    """
    reading, faults = config.read(), Faults()
    groups = {
        "database": list(_connection(reading.settings.dsn)),
        "listen": list(_connection(reading.settings.listen_dsn)),
        "worker": list(_worker(reading)),
    }
    if reading.settings.listen_dsn is reading.settings.dsn:
        del groups["listen"]
    faults.found += reading.faults
    with faults:
        config.load_sink(reading.settings.sink)
    for name, read in _sinks():
        groups[name] = list(read.settings)
        faults.found += read.faults
    if as_json:
        report = {"settings": groups, "faults": faults.found, "doubts": reading.doubts}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_settings(groups, reading.doubts)
        sys.stdout.flush()
    faults.settle()


def _connection(address: Address) -> Iterator[Setting]:
    """What leads to a database; nothing where that has faults, which are told elsewhere."""
    try:
        shown = list(address.resolve().shown())
    except ConfigurationError:
        return
    yield from (Setting(given.name, given.value, given.origin) for given in shown)


def _worker(reading: config.Reading) -> Iterator[Setting]:
    for field in config.Settings.model_fields:
        value = _shown(field, getattr(reading.settings, field))
        yield Setting(config.environment_name(field), value, reading.origins.get(field, "default"))


def _shown(field: str, value: object) -> str | float | bool | None:
    """A value for people, without what must not be seen."""
    if isinstance(value, SecretStr):
        return masked(Given(value.get_secret_value(), field, "")) if field.endswith("_url") else MASK
    if field == "realtime_token_command" and value is not None:
        return f"{str(value).split(maxsplit=1)[0]} …"  # its arguments may be credentials
    if field == "supabase_url" and value is not None:
        return without_credentials(str(value))
    return value if isinstance(value, str | float | int | bool) else None


def _sinks() -> Iterator[tuple[str, SinkSettings]]:
    """What the installed sinks say of their settings, by their modules."""
    for entry in entry_points(group=GROUP):
        try:
            read = entry.load()
        except ImportError as error:
            yield entry.name, SinkSettings((), (f"the settings of {entry.name} cannot be read: {error}",))
        else:
            yield entry.name, read()
