"""The command `outbox bench`: one command for each scenario, `all` of them, and `show` for kept results."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from outbox.cli.console import Console
from outbox.cli.session import ask
from outbox.model.errors import ConfigurationError
from outbox_bench.cli import terminal as screens
from outbox_bench.cli.consent import ask_for
from outbox_bench.cli.dataclass_options import with_options
from outbox_bench.cli.session import ScenarioRun
from outbox_bench.report.results import Result, keep, load
from outbox_bench.scenarios import restricted
from outbox_bench.scenarios.options import brief, option
from outbox_bench.scenarios.registry import SCENARIOS, Scenario, help_of, name_of

app = typer.Typer(help="Measure it, on your servers or on throwaway ones.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Common:
    """The options that all scenarios share."""

    dsn: str | None = option(
        None,
        "Database to measure on, postgresql://…; its OUTBOX TABLES ARE EMPTIED. DATABASE_URL is not used. "
        "Default: a throwaway PostgreSQL.",
    )
    temporal: str | None = option(
        None,
        "Temporal's frontend, host:port; namespace, key and TLS as TEMPORAL_… says. Default: a throwaway dev server.",
    )
    json: Path | None = option(
        None, "File, or folder, for the result with all measurements, the environment and the settings."
    )
    plots: Path | None = option(None, "Folder for plots, PNG and SVG.")
    brief: bool = option(default=False, text="Only check that it works.")
    yes: bool = option(
        default=False, text="Empty the outbox tables of --dsn without asking, also if messages wait there."
    )


@app.callback()
def _root() -> None:
    """Measure what the outbox does, on your servers or on throwaway ones.

    Scenarios empty the outbox tables of the database that they run on. None is taken from the environment: without
    --dsn and --temporal, PostgreSQL and Temporal come from their wheels, in temporary directories.
    """


def _command(scenario: Scenario, given: dict[str, dict[str, Any]]) -> None:
    """Run one scenario."""
    common = Common(**given["common"])
    _prepare(common)
    session = _measure(scenario, common, given["options"])
    _finish([session], common)


def _measure_all(given: dict[str, dict[str, Any]]) -> None:
    """Run every scenario and print the table of all goals.

    With --json and --plots, which must be folders here, each scenario's result goes into files of its own.
    """
    common = Common(**given["common"])
    _prepare(common)
    sessions = []
    for scenario in SCENARIOS:
        sessions.append(_measure(scenario, common, {}))
        if sessions[-1].interrupted:
            break
    screens.show_goals([session.result for session in sessions], screens.paper())
    _finish(sessions, common)


for _scenario in SCENARIOS:
    app.command(name_of(_scenario), help=help_of(_scenario))(
        with_options(partial(_command, _scenario), options=_scenario.OPTIONS, common=Common)
    )
app.command("gates", help="The same as `restricted`, under its former name.", hidden=True)(
    with_options(partial(_command, restricted), options=restricted.OPTIONS, common=Common)
)
app.command("all", help=_measure_all.__doc__)(with_options(_measure_all, common=Common))


@app.command()
def show(
    files: Annotated[list[Path], typer.Argument(help="Files that --json wrote.")],
    plots: Annotated[Path | None, typer.Option(help="Folder for plots, PNG and SVG.")] = None,
) -> None:
    """Show kept results again."""
    console = screens.paper()
    results = [load(file) for file in files]
    for result in results:
        screens.show(result, console)
        console.print()
    if len(results) > 1:
        screens.show_goals(results, console)
    _draw(results, plots)


def _prepare(common: Common) -> None:
    """Check before the first measurement that everything is available that the options need."""
    if common.plots is not None:
        _plots()
    if common.dsn is not None:
        ask_for(common.dsn, yes=common.yes)


def _measure(scenario: Scenario, common: Common, given: dict[str, Any]) -> ScenarioRun:
    """Run a scenario under a progress bar, show what it found, and keep it if that is wanted."""
    made = brief(scenario.OPTIONS) if common.brief else scenario.OPTIONS()
    session = ScenarioRun(scenario, replace(made, **given), common.dsn, common.temporal, brief=common.brief)
    with screens.Bar(Console(stderr=True), name_of(scenario)) as bar:
        ask(partial(session.run, bar.show))
    console = screens.paper()
    if session.found_anything:
        screens.show(session.result, console)
        console.print()
        if common.json is not None:
            sys.stderr.write(f"kept in {keep(session.result, common.json)}\n")
    return session


def _finish(sessions: list[ScenarioRun], common: Common) -> None:
    """Draw what was measured, and leave with what went wrong."""
    _draw([session.result for session in sessions if session.found_anything], common.plots)
    errors = [error for session in sessions if (error := session.failure) is not None]
    if any(session.interrupted for session in sessions):
        raise typer.Exit(130)
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("scenarios failed", errors)


def _draw(results: list[Result], folder: Path | None) -> None:
    if folder is not None:
        for path in _plots().draw(results, folder):
            sys.stderr.write(f"drawn {path}\n")


def _plots() -> Any:  # noqa: ANN401 - a module
    """The module that draws. Raises ConfigurationError where matplotlib is missing."""
    try:
        from outbox_bench.report import plots  # noqa: PLC0415 - matplotlib is an extra, and takes its time
    except ImportError as error:
        raise ConfigurationError(f"--plots needs an extra: pip install 'temporal-outbox[bench]' ({error})") from error
    return cast("Any", plots)
