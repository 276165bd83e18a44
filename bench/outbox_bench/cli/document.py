"""Writes docs/benchmarks.md from the kept results and from the paragraphs about missed goals.

A paragraph about a missed goal is in `bench/misses/<scenario>.md` below `## ` and the figure's name. Several such lines
may share one paragraph. It says why, what was tried, and what sets the limit.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import TextWrapper

from outbox.model.errors import ConfigurationError, OutboxError
from outbox_bench.report import plots
from outbox_bench.report.format import circumstances, number, with_unit
from outbox_bench.report.percentiles import PERCENTILES, bears, percentile
from outbox_bench.report.report import Figure, Measurements
from outbox_bench.report.results import Result, load_all
from outbox_bench.scenarios.registry import SCENARIOS, name_of

ROOT = Path(__file__).parents[3]
RESULTS, MISSES = ROOT / "bench" / "results", ROOT / "bench" / "misses"
PAGE, PLOTS = ROOT / "docs" / "benchmarks.md", "benchmarks"
_HEAD = """\
# Benchmarks

<!-- Made from bench/results by `make bench-document`. Do not edit. -->

## On your servers

```console
$ pip install 'temporal-outbox[bench]'
$ outbox bench latency                                  # on throwaway servers, to see what it does
$ outbox bench latency --dsn postgresql://bench@db.internal/bench --temporal temporal.internal:7233 --rate 50
$ outbox bench all --dsn … --temporal … --json results --plots plots
$ outbox bench show results/*.json                      # kept results again, with all goals in one table
```

Every scenario **empties the outbox tables** of its database, so give it a database of its own. It
refuses to start while a worker runs there, and asks before it drops waiting messages (`--yes`
answers). Without `--dsn` and `--temporal` it starts PostgreSQL and Temporal's dev server from their
wheels. Ctrl-C ends it; it then shows and keeps the results so far. `--brief` only checks that it
works. Each scenario has its own `--help`.

A ratio compares values that were measured in turn within one run on the same servers. Ratios differ
less between machines than milliseconds do. A figure is the median of its runs.
"""
_NOTHING = (
    "\nNothing measured yet: `make bench` measures everything, keeps it in `bench/results` and writes this page.\n"
)


def page(results: Iterable[Result], misses: Path = MISSES) -> str:
    """The whole page. Raises ConfigurationError if a missed goal has no paragraph, or a paragraph has no goal."""
    order = [name_of(scenario) for scenario in SCENARIOS]
    found = sorted(results, key=lambda result: order.index(result.report.scenario))
    if not found:
        return _HEAD + _NOTHING
    parts = ["\n".join(_goals(found))]
    parts += ["\n".join(_chapter(result, _paragraphs(result.report, misses))) for result in found]
    return _HEAD + "\n" + "\n\n".join(map(_wrapped, parts)) + "\n"


def _wrapped(text: str) -> str:
    """Paragraphs and list items in lines of at most 100 characters; tables, images and headings stay."""
    return "\n\n".join(
        block if block.startswith(("|", "#", "!", "<")) else _filled(block) for block in text.split("\n\n")
    )


def _filled(block: str) -> str:
    lines = block.splitlines() if block.startswith("- ") else [block]
    wrapper = TextWrapper(100, subsequent_indent="  " if len(lines) > 1 or block.startswith("- ") else "")
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return "\n".join(map(wrapper.fill, lines))


def command_of(result: Result) -> str:
    """The command that measured this, with the options that were not left at their defaults."""
    report = result.report
    scenario = next(each for each in SCENARIOS if name_of(each) == report.scenario)
    words = ["outbox bench", report.scenario]
    for field in fields(scenario.OPTIONS):
        value = report.settings.get(field.name, MISSING)
        if value is MISSING or _plain(value) == _plain(field.default):
            continue
        words.append("--" + field.name.removesuffix("_s").replace("_", "-"))
        if not isinstance(value, bool):
            words.append(_plain(value))
    return " ".join(words)


def _plain(value: object) -> str:
    """As one writes it on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _goals(results: list[Result]) -> Iterator[str]:
    """Every figure that has a goal, against it."""
    yield "## The goals"
    yield ""
    yield "| what | measured | goal | | runs, least – most | command |"
    yield "|---|--:|--:|---|---|---|"
    for result in results:
        for figure in _with_goal(result.report):
            verdict = "reached" if figure.reached else f"[**missed**](#{_anchor(result.report.scenario)})"
            goal = f"{figure.goal.relation} {with_unit(figure.goal.value, figure.unit)}" if figure.goal else ""
            measured = with_unit(figure.value, figure.unit)
            yield _row(figure.name, measured, goal, verdict, _runs(figure), f"`{command_of(result)}`")


def _chapter(result: Result, missed: dict[str, list[str]]) -> Iterator[str]:
    """One scenario: how it was measured, the results, and notes about them."""
    report = result.report
    yield f"## {report.scenario}"
    yield ""
    yield f"{report.title}{'' if report.title.endswith('?') else '.'} `{command_of(result)}`"
    yield ""
    for text, figures in missed.items():
        yield f"**Missed: {'; '.join(figures)}.** {text}"
        yield ""
    yield from _notes(report)
    for plot in plots.of(report):
        yield f"![{plot.title}]({PLOTS}/{report.scenario}-{plot.name}.svg)"
        yield ""
    yield from _figures(report)
    yield from _samples(report)
    yield "<details><summary>measured on, with</summary>"
    yield ""
    yield from (f"- {line}" for line in circumstances(result))
    yield ""
    yield "</details>"


def _notes(report: Measurements) -> Iterator[str]:
    for note in report.notes:
        yield f"- *{_safe(note)}*"
    if report.notes:
        yield ""


def _figures(report: Measurements) -> Iterator[str]:
    figures = [figure for figure in report.figures if figure.runs]
    if not figures:
        return
    yield "| figure | measured | runs, least – most |"
    yield "|---|--:|---|"
    for figure in figures:
        yield _row(figure.name, with_unit(figure.value, figure.unit), _runs(figure))
    yield ""


def _samples(report: Measurements) -> Iterator[str]:
    """Percentiles of the single measurements; – if there are too few."""
    if not any(report.samples.values()):
        return
    yield _row("milliseconds", "n", *(f"p{percent:g}" for percent in PERCENTILES), "max")
    yield "|---|" + "--:|" * (len(PERCENTILES) + 2)
    for name, values in report.samples.items():
        if values:
            shown = (number(percentile(values, p)) if bears(len(values), p) else "–" for p in PERCENTILES)
            yield _row(name, f"{len(values):,}", *shown, number(max(values)))
    yield ""


def _paragraphs(report: Measurements, folder: Path) -> dict[str, list[str]]:
    """The paragraphs about this scenario's missed goals, each with its goals."""
    file = folder / f"{report.scenario}.md"
    said = _said(file.read_text(encoding="utf-8")) if file.exists() else {}
    known = {figure.name for figure in _with_goal(report)}
    missed = [figure.name for figure in _with_goal(report) if not figure.reached]
    faults = [f"{file} says nothing of the missed goal: ## {name}" for name in missed if not said.get(name)]
    faults += [f"{file} has a paragraph about an unknown goal: ## {name}" for name in said if name not in known]
    if faults:
        raise ConfigurationError(*faults)
    found: dict[str, list[str]] = {}
    for name in missed:
        found.setdefault(said[name], []).append(name)
    return found


def _said(text: str) -> dict[str, str]:
    """Paragraphs by the figure they are about. Headings in a row share the text below the last of them."""
    said: dict[str, str] = {}
    waiting: list[str] = []
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE):
        waiting.append(heading.strip())
        if body.strip():
            said |= dict.fromkeys(waiting, body.strip())
            waiting.clear()
    return said | dict.fromkeys(waiting, "")


def _with_goal(report: Measurements) -> list[Figure]:
    return [figure for figure in report.figures if figure.goal and figure.runs]


def _runs(figure: Figure) -> str:
    if len(figure.runs) == 1:
        return "one run"
    return f"{number(min(figure.runs))} – {number(max(figure.runs))} in {len(figure.runs)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(_safe, cells))} |"


def _safe(text: str) -> str:
    """Without what would end a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def main() -> None:
    """Write the page; a missing paragraph is one line and exit code 2."""
    try:
        PAGE.write_text(page(load_all(RESULTS)), encoding="utf-8")
    except OutboxError as error:
        lines = error.faults if isinstance(error, ConfigurationError) else (str(error),)
        sys.exit("\n".join(f"outbox_bench.cli.document: {line}" for line in lines))
    sys.stderr.write(f"written {PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
