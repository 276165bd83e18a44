"""The command `outbox`. Thin: it finds the command that was asked for, and turns errors into one line and an exit code.

Exit codes: 0 done or drained, 1 other errors, 2 configuration or usage, 3 schema. Other distributions and packages add
commands through the entry-point group `outbox.commands`; a name of the core's own is not theirs to take.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Annotated, NoReturn

import typer

from outbox import __version__
from outbox.cli.commands import COMMANDS
from outbox.cli.help import Commands
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.model.plain_text import guard
from outbox.observability import logs

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


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    guard()
    add_commands(next((word for word in sys.argv[1:] if not word.startswith("-")), None))
    code: int | str | None = 0
    try:
        app()
    except (OutboxError, ExceptionGroup) as error:
        code = _report(error)
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        of_output = error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF)
        code = _unprinted(error) if of_output else _crashed(error)
    except SystemExit as end:
        code = end.code
    except Exception as error:  # noqa: BLE001 - it must reach the log, and leave the process by the same door
        code = _crashed(error)
    _leave(code if isinstance(code, int) else int(code is not None))


def add_commands(asked: str | None = None) -> None:
    """Join the command that was asked for, or all of them if there is none of that name."""
    loads: dict[str, Callable[[], object]] = {}
    if asked not in COMMANDS:
        loads |= {entry.name: partial(_load_foreign, entry) for entry in entry_points(group="outbox.commands")}
    loads |= {name: partial(resolve_name, place) for name, place in COMMANDS.items()}
    for name in [asked] if asked in loads else loads:
        _add_command(name, loads[name])


def _report(error: OutboxError | ExceptionGroup[Exception]) -> int:
    """Write one line for each cause and return the exit code. An unexpected error keeps its traceback."""
    causes = list(_leaves(error))
    for cause in causes:
        if not isinstance(cause, OutboxError):
            return _crashed(error)
        for line in cause.faults if isinstance(cause, ConfigurationError) else (str(cause),):
            logs.say_end(line, cause.exit_code)
    return max(cause.exit_code for cause in causes if isinstance(cause, OutboxError))


def _crashed(error: Exception) -> int:
    """Report an unexpected error and return the exit code. Raises the error if there is no log."""
    if not logs.say_crash(error):
        raise error
    return 1


def _unprinted(error: OSError) -> int:
    """Say that output is not taken, and return the exit code. What was done is done, and only not shown."""
    sys.stderr.write(f"outbox: output cannot be written: {error.strerror}; what was done is done\n")
    return 1


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


def _load_foreign(entry: EntryPoint) -> object:
    """The command of an entry point. Where a module is missing, the error names the extra that the entry asks for."""
    try:
        return entry.load()
    except ImportError as error:
        if not entry.extras or entry.dist is None:
            raise
        wanted = f"{entry.dist.name}[{','.join(entry.extras)}]"
        raise ImportError(f"{error}: pip install '{wanted}'") from error


def _add_command(name: str, load: Callable[[], object]) -> None:
    """Join a command, or say in a foreign one's place why it cannot be had."""
    try:
        command = load()
    except Exception as error:  # a foreign one may fail in any way, and must not take the others with it
        if name in COMMANDS:
            raise
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"

        def unavailable() -> None:
            raise ConfigurationError(f"`outbox {name}` cannot be loaded: {reason}")

        anything = {"allow_extra_args": True, "ignore_unknown_options": True}  # it may be a group, or take options
        app.command(name, help="(not available: it cannot be loaded)", context_settings=anything)(unavailable)
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
    logs.flush()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or (1 if isinstance(error, BrokenPipeError) else _unprinted(error))
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
