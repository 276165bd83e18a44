"""Which scenarios there are. To add one is a line in `SCENARIOS`."""

from __future__ import annotations

from typing import Any, Protocol

from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Measurements, ShowProgress
from outbox_bench.scenarios import (
    backlog,
    drain,
    held_xmin,
    idle,
    latency,
    peers,
    producers,
    ready,
    restricted,
    rolling,
    scale,
    takeover,
    throughput,
)


class Scenario(Protocol):
    """A module that measures one thing. Its docstring is the command's help, the first line the report's title."""

    __name__: str
    __doc__: str | None

    @property
    def OPTIONS(self) -> type[Any]:  # noqa: N802 - a class of the module
        """Frozen dataclass, every field an `option`. A field `duration_s` is the option `--duration`."""

    async def measure(self, lab: Lab, options: Any, report: Measurements, show: ShowProgress) -> None:  # noqa: ANN401 - its own OPTIONS
        """Fill the report in place, run by run, so that what was measured survives a cancellation."""


SCENARIOS: list[Scenario] = [
    latency,
    throughput,
    scale,
    producers,
    backlog,
    held_xmin,
    idle,
    takeover,
    ready,
    drain,
    rolling,
    restricted,
    peers,
]


def name_of(scenario: Scenario) -> str:
    """The command's name."""
    return scenario.__name__.rpartition(".")[2].replace("_", "-")


def help_of(scenario: Scenario) -> str:
    """The command's help, of which the first line is the report's title."""
    return (scenario.__doc__ or name_of(scenario)).strip()
