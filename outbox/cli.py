"""The command `outbox`. Thin: it parses, calls, and turns errors into one line and an exit code.

Exit codes: 0 done or drained, 1 other errors, 2 configuration or usage, 3 schema. Other distributions and packages add
commands through the entry-point group `outbox.commands`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import orjson
import typer
from loguru import logger

from outbox import __version__, config, dead, logs, rules
from outbox.asking import ask, with_store
from outbox.cancel import cancel
from outbox.doctor import examine, is_safe
from outbox.effective import config_command, prepare, survey
from outbox.enqueue import enqueue
from outbox.errors import ConfigurationError, OutboxError
from outbox.events import Events
from outbox.health import health
from outbox.migrate import inspect, migrate
from outbox.mode import mode
from outbox.panels import Commands
from outbox.prune import prune
from outbox.reset import reset
from outbox.screens import show_findings, show_status, show_steps
from outbox.sink import SinkFactory
from outbox.store import Store
from outbox.traces import tracing
from outbox.worker import Worker, spare_collector, stop_on_signals

_WHAT = "Transactional outbox for PostgreSQL and Temporal: commit an event with your data, and its workflow starts."
_BEGIN = (
    "New here? See `outbox demo`. Then set DATABASE_URL and TEMPORAL_ADDRESS, and `outbox migrate`, `outbox run`, "
    "`outbox status`."
)
app = typer.Typer(
    name="outbox",
    help=f"{_WHAT}\n\n{_BEGIN}",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dead.app, name="dead")
for command in (cancel, enqueue, health, mode, prune, reset, rules.pause, rules.resume, rules.limit):
    app.command()(command)
app.command("config")(config_command)


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    for entry in entry_points(group="outbox.commands"):
        if asked in (None, entry.name):  # another one's dependencies would cost every command a second
            _add_command(entry.name, entry.load)
    code: int | str | None = 0
    try:
        app()
    except (OutboxError, ExceptionGroup) as error:
        code = _report(error)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as end:
        code = end.code
    _leave(code if isinstance(code, int) else int(code is not None))


def _report(error: OutboxError | ExceptionGroup[Exception]) -> int:
    """Write one line for each cause and return the exit code. What we did not foresee keeps its traceback."""
    causes = list(_leaves(error))
    for cause in causes:
        if not isinstance(cause, OutboxError):
            raise error
        for line in cause.faults if isinstance(cause, ConfigurationError) else (str(cause),):
            sys.stderr.write(f"outbox: {line}\n")
    return max(cause.exit_code for cause in causes if isinstance(cause, OutboxError))


def _leaves(error: Exception) -> Iterator[Exception]:
    """The errors in a task group's group of errors."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        sys.stdout.write(f"outbox {__version__}\n")
        raise typer.Exit


@app.command("migrate")
def migrate_command(
    status: Annotated[
        bool, typer.Option("--status", help="List the migrations and change nothing; exit 3 unless all are applied.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied and change nothing.")] = False,
) -> None:
    """Bring the outbox schema in the database to this version."""
    settings = config.load()
    if not status and not dry_run:
        applied = ask(partial(migrate, settings.dsn, settings.schema_name, warn=_warn))
        show_steps(applied, done="applied")
        sys.stdout.write(f"schema {settings.schema_name} is up to date\n")
        return
    steps = ask(partial(inspect, settings.dsn, settings.schema_name))
    wrong = [step for step in steps if step.state != "applied"]
    show_steps(steps if status else wrong)
    if status and wrong:
        raise typer.Exit(3)


def _warn(line: str) -> None:
    sys.stderr.write(f"outbox: {line}\n")


@app.command()
def run(
    mode: Annotated[
        str | None, typer.Option(help="What wakes the worker besides polling: auto, listen, realtime or poll.")
    ] = None,
    sink: Annotated[str | None, typer.Option(help="Where messages go: module:attribute.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Deliveries in flight at once, at most.")] = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain.

    A second signal ends it at once.
    """
    prepared = prepare(mode=mode, sink=sink, concurrency=concurrency)
    logs.configure(prepared.settings.log_level, prepared.settings.log_format)
    logs.warn_of(prepared.doubts)
    spare_collector()
    if not ask(partial(_run_worker, prepared.settings, prepared.sink)):
        raise typer.Exit(1)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what waits, what failed, and who works."""
    report = ask(partial(with_store, config.load(), Store, Store.status))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_status(report)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Examine all that a worker needs, and print the cure of what is wrong; exit 1 unless it is safe to start."""
    found = survey()
    groups = ask(partial(examine, found.reading, found.sink, found.faults, found.sink_faults))
    safe = is_safe(groups)
    if as_json:
        report = {"safe": safe, "findings": [finding for group in groups for finding in group.findings]}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_findings(groups)
    if not safe:
        raise typer.Exit(1)


async def _run_worker(settings: config.Settings, sink_factory: SinkFactory) -> bool:
    """Run a worker under signals; return whether it ended by itself, not by a second signal."""
    events = Events(logs.EventLog())
    worker = Worker(settings, sink_factory, events)
    endpoints: AbstractAsyncContextManager[None] = nullcontext()
    if settings.http_port:
        from outbox.endpoints import serving  # noqa: PLC0415 - loading its libraries takes a tenth of a second

        endpoints = serving(settings, worker.condition, events)
    async with stop_on_signals(worker), tracing(events, logs.warn_of), endpoints:
        await worker.run()
        return True
    return False


def _add_command(name: str, load: Callable[[], object]) -> None:
    """Join a foreign command, or say in its place why it cannot be had."""
    try:
        command = load()
    except ImportError as error:
        reason = str(error)

        def unavailable() -> None:
            raise ConfigurationError(f"`outbox {name}` cannot be loaded: {reason}")

        anything = {"allow_extra_args": True, "ignore_unknown_options": True}  # it may be a group, or take options
        app.command(name, help="(not available: a dependency is missing)", context_settings=anything)(unavailable)
        return
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)  # type: ignore[type-var]


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's teardown.

    The Temporal SDK's threads may crash in it (temporalio/sdk-python#300).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C has nothing left to stop
    logger.complete()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
