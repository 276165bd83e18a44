"""Examines the settings, without connecting to anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from outbox.model.finding import Check, Finding
from outbox.postgres.address import Faults

if TYPE_CHECKING:
    from outbox.config.settings import LoadedSettings

SETTINGS = Check("settings", ("warning", "fault"))
RETIRED = Check("retired variables", ("warning", "fault"))
CHECKS = (SETTINGS, RETIRED)
_SHOW = "outbox config"


def examine_settings(reading: LoadedSettings, faults: Iterable[str]) -> Iterator[Finding]:
    """A finding for each fault and each doubt. Doubts about TLS are reported where the database is examined."""
    faults = [fault for fault in faults if fault not in reading.retired]
    open_to_tls = set(_of_tls(reading))
    doubts = [doubt for doubt in reading.doubts if doubt not in reading.retired | open_to_tls]
    yield from (SETTINGS.fault(fault, _SHOW) for fault in faults)
    yield from (SETTINGS.warning(doubt, _SHOW) for doubt in doubts)
    if not faults and not doubts:
        yield SETTINGS.good("all can be used, and fit together")
    for line in sorted(reading.retired):
        detail, _, cure = line.partition(": ")
        yield RETIRED.fault(detail, cure) if line in reading.faults else RETIRED.warning(detail, cure)
    if not reading.retired:
        yield RETIRED.good("none is set")


def _of_tls(reading: LoadedSettings) -> Iterator[str]:
    with Faults():
        server = reading.settings.dsn.resolve()
        yield from filter(None, (server.tls.doubt(host.name) for host in server.hosts))
