"""docs/benchmarks.md shows the measurements and explains each missed goal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outbox.model.errors import ConfigurationError
from outbox_bench.cli.document import MISSES, PAGE, PLOTS, RESULTS, command_of, page
from outbox_bench.report.report import Goal, Measurements
from outbox_bench.report.results import Result, load_all
from outbox_bench.scenarios.latency import LatencyOptions


def result(*, value: float = 2.0) -> Result:
    report = Measurements(
        "latency", "How long it takes", settings={"mode": "listen", "rate": LatencyOptions().rate, "runs": 2}
    )
    for run in (value, value + 1, value - 1):
        report.measured("event ÷ direct, p50", "×", run, Goal("≤", 1.1))
    report.sampled("listen: event", [float(n) for n in range(1, 21)])
    machine = {"processor": "a | b", "cores": 2, "memory_gib": 4.0, "system": "Linux", "python": "CPython 3.11"}
    return Result(report, {**machine, "embedded": [], "revision": "abc"}, "2026-01-01T00:00:00+00:00", 3.0)


def test_the_page_is_what_the_kept_results_make_of_it() -> None:
    assert page(load_all(RESULTS), MISSES) == PAGE.read_text(encoding="utf-8")


def test_every_plot_is_shown_and_small() -> None:
    shown = set(re.findall(rf"\({PLOTS}/(.+?)\.svg\)", PAGE.read_text(encoding="utf-8")))
    kept = [path for path in (PAGE.parent / PLOTS).iterdir() if path.suffix in (".svg", ".png")]
    assert {path.stem for path in kept} == shown
    assert [path.name for path in kept if path.stat().st_size > 150_000] == []


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    assert "Nothing measured yet" in page([], tmp_path)


def test_a_figure_is_shown_with_its_goal_its_runs_and_its_command(tmp_path: Path) -> None:
    (tmp_path / "latency.md").write_text("## event ÷ direct, p50\n\nThe disk is slow.\n", encoding="utf-8")
    text = page([result()], tmp_path)
    command = "`outbox bench latency --mode listen --runs 2`"
    row = f"| event ÷ direct, p50 | × 2.00 | ≤ × 1.10 | [**missed**](#latency) | 1.00 – 3.00 in 3 | {command} |"
    assert row in text.splitlines()
    assert "**Missed: event ÷ direct, p50.** The disk is slow." in text
    assert "| listen: event | 20 | 10.5 | 18.1 | 19.1 | – | – | 20.0 |" in text


def test_a_missed_goal_without_a_paragraph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"latency\.md says nothing of the missed goal: ## event ÷ direct"):
        page([result()], tmp_path)
    assert "| reached |" in page([result(value=1.05)], tmp_path)


def test_a_paragraph_about_an_unknown_goal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latency.md").write_text("## event ÷ driect, p50\n\nThe disk is slow.\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="has a paragraph about an unknown goal: ## event ÷ driect, p50"):
        page([result(value=1.0)], tmp_path)


def test_goals_may_share_a_paragraph(tmp_path: Path) -> None:
    one = result()
    one.report.measured("event ÷ direct, p99", "×", 3.0, Goal("≤", 1.1))
    said = "## event ÷ direct, p50\n## event ÷ direct, p99\n\nThe disk is slow.\n"
    (tmp_path / "latency.md").write_text(said, encoding="utf-8")
    assert "**Missed: event ÷ direct, p50; event ÷ direct, p99.** The disk is slow." in page([one], tmp_path)


def test_the_command_names_only_what_is_no_default() -> None:
    assert command_of(result()) == "outbox bench latency --mode listen --runs 2"
