"""What is in effect: the settings, the sink and the sink's own settings, with every fault at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points

from outbox.config import settings as config
from outbox.config.sink_reference import current
from outbox.model.errors import ConfigurationError
from outbox.model.sink import SinkFactory, SinkSettings
from outbox.postgres.address import Faults

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

    reading: config.LoadedSettings
    sink: SinkFactory | None
    """None if it cannot be found."""
    faults: tuple[str, ...]
    sink_faults: tuple[str, ...]
    """Of the sink's own settings."""


def survey(**flags: object) -> Survey:
    """Read everything, also what is faulty."""
    reading, faults, factories = config.read(**flags), Faults(), list[SinkFactory]()
    faults.found += reading.faults
    with faults:
        factories.append(config.load_sink(reading.settings.sink))
    if not factories:
        return Survey(reading, None, tuple(faults), ())
    module = current(reading.settings.sink).partition(":")[0]
    of_sink = [fault for _, settings in sink_settings(module) for fault in settings.faults]
    return Survey(reading, factories[0], tuple(faults), tuple(of_sink))


def prepared(found: Survey) -> Prepared:
    """What a worker needs. Raises ConfigurationError that names every fault of settings and sink."""
    if found.sink is None or found.faults or found.sink_faults:
        raise ConfigurationError(*found.faults, *found.sink_faults)
    return Prepared(found.reading.settings, found.sink, found.reading.doubts)


def sink_settings(module: str | None = None) -> Iterator[tuple[str, SinkSettings]]:
    """What the installed sinks say of their settings, by their modules; or only the sink of that module."""
    for entry in entry_points(group=GROUP):
        if module not in (None, entry.name):
            continue
        try:
            read = entry.load()
        except ImportError as error:
            yield entry.name, SinkSettings((), (f"the settings of {entry.name} cannot be read: {error}",))
        else:
            yield entry.name, read()
