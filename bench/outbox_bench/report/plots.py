"""Plots of results, as PNG for pages and SVG for screens of any size. Needs matplotlib, which is an extra."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator

from outbox.model.errors import ConfigurationError
from outbox_bench.report.format import number
from outbox_bench.report.percentiles import percentile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from outbox_bench.report.report import Figure, Measurements
    from outbox_bench.report.results import Result

mpl.use("agg")
mpl.rcParams |= {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "outbox",
}
_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#cb912f", "#337ea9")
_DIRECT = "#787774"
_EVENT_SAMPLE, _DIRECT_SAMPLE = "event → start acknowledged", "direct start"
_STAGES = ("committed", "hint received", "claimed", "start acknowledged", "settled")
_STAGE_NAMES = ("insert and commit", "hint", "claim", "start at Temporal", "settle")

_POINTS = 400
"""Of a curve; more could not be seen, and would only make the file large."""
_OVER = {
    "backlog": "messages waiting",
    "held-xmin": "messages that have flowed",
    "producers": "connections",
    "rolling": "seconds since the update began",
    "scale": "workers",
}
_UNITS = {
    "backlog": {"drain rate": "rows/s", "claim": "ms", "urgent message": "ms", "buffers of a claim": "buffers"},
    "held-xmin": {"": "rows/s"},
    "producers": {"": "× the plain transaction"},
    "rolling": {"": "ms, event → start"},
    "scale": {"": "messages/s"},
}
"""The unit of a scenario's curves, by name; "" is for all others."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture: `<scenario>-<name>.svg`."""

    name: str
    title: str
    drawing: Callable[[Canvas], None]


def draw(results: list[Result], folder: Path) -> list[Path]:
    """Draw all results and return the files. Raises ConfigurationError for a folder that cannot be made."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for result in results:
            for plot in of(result.report):
                canvas = Canvas(figsize=(8.4, 4.6), layout="constrained")
                plot.drawing(canvas)
                canvas.suptitle(textwrap.fill(plot.title, 88), x=0.01, ha="left")
                _sign(canvas, result)
                for suffix, options in ((".png", {"dpi": 120}), (".svg", {"metadata": {"Date": None}})):
                    path = folder / f"{result.report.scenario}-{plot.name}{suffix}"
                    canvas.savefig(path, **options)
                    written.append(path)
    except OSError as error:
        raise ConfigurationError(f"--plots {folder} cannot be written: {error.strerror}") from error
    return written


def of(report: Measurements) -> list[Plot]:
    """Every plot that the report has the measurements for."""
    return list(_plots(report))


def _plots(report: Measurements) -> Iterator[Plot]:
    if curves := _latencies(report):
        title = "Latency, from the moment it was due to Temporal's answer"
        yield Plot("cdf", title, lambda canvas: _cdf(canvas.subplots(), curves))
    if alone := _alone(report):
        title = "Latency, one at a time, nothing else under way"
        yield Plot("one-at-a-time", title, lambda canvas: _cdf(canvas.subplots(), alone))
    if stages := _stages(report):
        yield Plot("stages", "Where the time goes", lambda canvas: _stacked(canvas.subplots(), stages))
    if picked := _by_contender(report, "pick-up"):
        yield Plot(
            "pick-up", "Pick-up: from before the enqueue to the job's beginning", lambda c: _cdf(c.subplots(), picked)
        )
    if report.series:
        yield Plot("curve", report.title, lambda canvas: _curves(canvas, report))
        return
    for unit, figures in _bars(report).items():
        name = "bars-" + unit.replace("/", "-per-")
        title = f"{report.title} ({unit})"
        yield Plot(name, title, lambda canvas, unit=unit, figures=figures: _bar(canvas.subplots(), figures, unit))  # type: ignore[misc]


def _by_contender(report: Measurements, quantity: str) -> dict[str, list[float]]:
    """Samples of one quantity by who was measured."""
    begin = f"{quantity}, "
    return {name.removeprefix(begin): each for name, each in report.samples.items() if name.startswith(begin) and each}


def _latencies(report: Measurements) -> dict[str, list[float]]:
    """Open-loop latencies by mode, and all direct starts together."""
    curves: dict[str, list[float]] = {}
    for full_name, values in report.samples.items():
        group, _, name = full_name.partition(": ")
        if group.endswith("from when it was due") and values:
            if name == _EVENT_SAMPLE:
                curves.setdefault(f"{group.split(',')[0]}: event → start", []).extend(values)
            elif name == _DIRECT_SAMPLE:
                curves.setdefault("direct start", []).extend(values)
    return curves


def _alone(report: Measurements) -> dict[str, list[float]]:
    """One-at-a-time latencies."""
    curves: dict[str, list[float]] = {}
    for full_name, values in report.samples.items():
        group, _, name = full_name.partition(": ")
        if group.endswith("one at a time") and values:
            event = name == _EVENT_SAMPLE
            curves.setdefault(f"{group.split(',')[0]}: event → start" if event else "direct start", []).extend(values)
    return curves


def _cdf(axes: Axes, curves: dict[str, list[float]]) -> None:
    """How many per cent were through within how many milliseconds; the slowest hundredths spread out."""
    colours = iter(_COLOURS)
    for name, values in curves.items():
        direct = name == "direct start"
        ordered = sorted(values)
        places = _spread(len(ordered))
        axes.plot(
            [ordered[place] for place in places],
            [1 - (place + 0.5) / len(ordered) for place in places],
            label=f"{name}   p50 {number(percentile(ordered, 50))}, p99 {number(percentile(ordered, 99))} ms",
            color=_DIRECT if direct else next(colours),
            linestyle="--" if direct else "-",
            linewidth=1.8,
        )
    axes.set(xscale="log", yscale="log", xlabel="milliseconds", ylabel="per cent that are through")
    axes.invert_yaxis()
    ticks = [(1.0, "0"), (0.5, "50"), (0.1, "90"), (0.05, "95"), (0.01, "99"), (0.001, "99.9"), (0.0001, "99.99")]
    least = min(0.5 / len(values) for values in curves.values())
    shown = [tick for tick in ticks if tick[0] >= least]
    axes.set_yticks([share for share, _ in shown], [text for _, text in shown])
    axes.set_ylim(1.0, least)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()
    axes.legend(loc="best", fontsize=9)


def _spread(count: int) -> list[int]:
    """Which of this many ordered values to draw: evenly over the scale of per cents, the slowest all of them."""
    if count <= _POINTS:
        return list(range(count))
    return sorted({int(count * (1 - (0.5 / count) ** (step / _POINTS))) for step in range(_POINTS)} | {count - 1})


def _stages(report: Measurements) -> dict[str, list[float]]:
    """By mode: the medians of the stages' durations, one after the other."""
    found: dict[str, list[float]] = {}
    modes = [name.split(",")[0] for name in report.samples if name.endswith("from before the insert: claimed")]
    for mode in modes:
        ends: list[float] = []
        for stage in _STAGES:
            values = report.samples.get(f"{mode}, from before the insert: {stage}")
            reached = median(values) if values else (ends[-1] if ends else 0.0)
            ends.append(max(reached, ends[-1] if ends else 0.0))
        found[mode] = [end - begin for begin, end in zip([0.0, *ends], ends, strict=False)]
    return found


def _stacked(axes: Axes, stages: dict[str, list[float]]) -> None:
    """A bar for each mode, cut into its stages."""
    modes = list(stages)
    left = [0.0] * len(modes)
    for place, name in enumerate(_STAGE_NAMES):
        widths = [stages[mode][place] for mode in modes]
        bars = axes.barh(modes, widths, left=left, color=_COLOURS[place], label=name, height=0.55)
        wide = max(map(sum, stages.values())) * 0.045
        axes.bar_label(
            bars, [number(w) if w > wide else "" for w in widths], label_type="center", color="white", fontsize=9
        )
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="milliseconds since before the insert, medians")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(_STAGE_NAMES))


def _curves(canvas: Canvas, report: Measurements) -> None:
    """The series of the report, those of one unit in one panel. The same thing in other company has its colour."""
    units = _UNITS.get(report.scenario, {})
    panels: dict[str, list[str]] = {}
    for name in report.series:
        panels.setdefault(units.get(name, units.get("", "")), []).append(name)
    for axes, (unit, names) in zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _panel(axes, {name: report.series[name] for name in names}, unit)
        axes.set_xlabel(_OVER.get(report.scenario, ""))


def _panel(axes: Axes, curves: dict[str, list[tuple[float, float]]], unit: str) -> None:
    """Curves over one axis. An axis that spans decades is logarithmic."""
    colours, shown = cycle(_COLOURS), dict[str, str]()
    companies = list(dict.fromkeys(name.rpartition(", ")[2] for name in curves if ", " in name))
    several = len({name.rpartition(", ")[0] for name in curves}) > 1
    for name, points in curves.items():
        what, _, company = name.rpartition(", ")
        colour = shown.setdefault(what if several else name, "") or next(colours)
        shown[what if several else name] = colour
        dashed = bool(what) and several and companies.index(company) > 0
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            "--" if dashed else "-",
            marker="o",
            markersize=4,
            label=name,
            color=colour,
        )
    xs, ys = ([point[place] for points in curves.values() for point in points] for place in (0, 1))
    if min(xs) > 0 and max(xs) / min(xs) >= 50:
        axes.set_xscale("log")
    elif len(set(xs)) <= 8:
        axes.set_xticks(sorted(set(xs)))
    if min(ys) > 0 and max(ys) / min(ys) >= 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
    else:
        axes.set_ylim(0, max(ys) * 1.12 or 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_ylabel(unit)
    outside = len(curves) > 5
    axes.legend(
        fontsize=8, loc="center left" if outside else "best", bbox_to_anchor=(1.01, 0.5) if outside else (0, 0, 1, 1)
    )


def _short(value: float) -> str:
    """A count that fits under a narrow panel."""
    for suffix, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.4g}{suffix}"
    return f"{value:,.10g}"


def _bars(report: Measurements) -> dict[str, list[Figure]]:
    """Rates, by unit; one alone is no comparison."""
    found: dict[str, list[Figure]] = {}
    for figure in report.figures:
        if figure.unit.endswith("/s") and figure.runs:
            found.setdefault(figure.unit, []).append(figure)
    return {unit: figures for unit, figures in found.items() if len(figures) > 1}


def _bar(axes: Axes, figures: list[Figure], unit: str) -> None:
    """A bar for each figure, with its range over the runs, and its goal as a line across."""
    names = [figure.name for figure in figures]
    values = [figure.value for figure in figures]
    reach = [[f.value - min(f.runs) for f in figures], [max(f.runs) - f.value for f in figures]]
    bars = axes.barh(names, values, xerr=reach, color=_COLOURS[0], ecolor="#37352f", capsize=3, height=0.6)
    axes.bar_label(bars, [number(value) for value in values], padding=6, fontsize=9)
    for bar, figure in zip(bars, figures, strict=True):
        if figure.goal is not None:
            low = bar.get_y()
            axes.plot([figure.goal.value] * 2, [low - 0.1, low + bar.get_height() + 0.1], color=_COLOURS[1], lw=2)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(
        xlabel=f"{unit}, median and range of the runs" + (", goals as lines" if any(f.goal for f in figures) else "")
    )


def _sign(canvas: Canvas, result: Result) -> None:
    """Say under the plot where this was measured, so that a copied plot still shows it."""
    env = result.environment
    own = " (embedded)" if "PostgreSQL" in env["embedded"] else ""
    parts = [f"{env['processor']}, {env['cores']} cores"]
    if env.get("postgresql"):
        parts.append(f"PostgreSQL {env['postgresql']['version']}{own}")
    if env.get("temporal"):
        parts.append(f"Temporal {env['temporal']['version']}")
    parts += [f"revision {env['revision'] or 'unknown'}", result.ended[:10]]
    canvas.supxlabel(" · ".join(parts), fontsize=7, color="#9b9a97", x=0.99, ha="right")
