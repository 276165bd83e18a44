"""One scenario from the first server to the finished result, also if it is interrupted or fails on the way."""

from __future__ import annotations

import os
from dataclasses import asdict
from time import monotonic
from typing import Any

from outbox.loops.signals import cancelled_on_signal
from outbox.model.errors import OutboxError
from outbox_bench.cli import environment
from outbox_bench.cli.noise import Noise
from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Measurements, ShowProgress
from outbox_bench.report.results import Result, now, rounded
from outbox_bench.scenarios.registry import Scenario, help_of, name_of


class BenchmarkError(OutboxError):
    """A scenario could not measure anything."""


class ScenarioRun:
    """Runs one scenario once. `result` is what was found, `error` what ended it early."""

    def __init__(
        self,
        scenario: Scenario,
        options: Any,  # noqa: ANN401 - the scenario's own
        dsn: str | None,
        temporal: str | None,
        *,
        brief: bool = False,
    ) -> None:
        title = help_of(scenario).splitlines()[0].rstrip(".")
        self._scenario = scenario
        self._options = options
        self._servers = dsn, temporal
        self._report = Measurements(name_of(scenario), title, settings=asdict(options))
        self._brief = brief
        self._interrupted = False
        self.error: Exception | None = None
        self.result: Result

    async def run(self, show: ShowProgress) -> None:
        """Measure until done, until Ctrl-C or until something fails; then put the result together."""
        began_s, noise = monotonic(), Noise()
        _forget_other_databases(own_listen_url=self._servers[0] is not None)
        async with Lab(*self._servers) as lab:
            async with cancelled_on_signal(self._interrupt):
                try:
                    await self._scenario.measure(lab, self._options, self._report, show)
                    show("done", 1.0)
                except Exception as error:  # noqa: BLE001 - it is raised again when what was measured has been shown
                    self.error = error
            took_s = monotonic() - began_s
            if self._interrupted:
                self._report.notes.append(f"interrupted after {took_s:.0f} s: only what was measured until then")
            if self._brief:
                self._report.notes.append("brief: a trial of the benchmark, which says nothing about speed")
            self._report.notes += noise.notes(self._report)
            found = await environment.describe(lab)
        self.result = rounded(Result(self._report, found, now(), took_s, self._interrupted))

    def _interrupt(self) -> None:
        self._interrupted = True

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self._interrupted

    @property
    def failure(self) -> Exception | None:
        """What went wrong; to find nothing to say, uninterrupted, is wrong too."""
        if self.error is None and not self.found_anything and not self._interrupted:
            return BenchmarkError(f"{self._report.scenario} measured nothing: {'; '.join(self._report.notes)}")
        return self.error

    @property
    def found_anything(self) -> bool:
        """Whether there is something to show."""
        return bool(self._report.samples or self._report.series or any(f.runs for f in self._report.figures))


def _forget_other_databases(*, own_listen_url: bool) -> None:
    """Drop settings that would lead the measured worker elsewhere: benchmarks use the schema `outbox`."""
    gone = ["OUTBOX_SCHEMA", "OUTBOX_MODE"]
    if not own_listen_url:
        gone += ["OUTBOX_LISTEN_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"]
    for name in gone:
        os.environ.pop(name, None)
