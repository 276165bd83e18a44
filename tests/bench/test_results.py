"""What a benchmark showed is what it keeps."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from outbox_bench.cli.terminal import show
from outbox_bench.report.report import Figure, Goal, Measurements
from outbox_bench.report.results import Result, keep, load, rounded

MACHINE = {"processor": "a processor", "cores": 2, "memory_gib": 7.8, "system": "Linux", "python": "CPython 3.11"}
MEASURED = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=5)


def screen(result: Result) -> str:
    paper = StringIO()
    show(result, Console(file=paper, width=130))
    return paper.getvalue()


@given(runs=MEASURED, samples=MEASURED, took_s=st.floats(0.001, 1e4))
@example(runs=[12.649996], samples=[12.649996, 40.0], took_s=13.499996)
def test_a_kept_result_looks_as_it_looked_at_first(runs: list[float], samples: list[float], took_s: float) -> None:
    figure = Figure("p99 ÷ alone", "×", runs, Goal("≤", 2.0))
    report = Measurements(
        "restricted", "Which keys a hot key holds up", [figure], {"others": samples}, {"others": [(0.0, 1.0)]}
    )
    environment = {**MACHINE, "embedded": ["PostgreSQL"], "revision": "abc"}
    result = rounded(Result(report, environment, "2026-01-01T00:00:00+00:00", took_s))
    with TemporaryDirectory() as folder:
        assert screen(load(keep(result, Path(folder)))) == screen(result)
