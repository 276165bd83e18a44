"""The entry of the command `outbox`. A health check comes every few seconds, and is spared the rest of the program."""

from __future__ import annotations

import gc
import os
import sys

from outbox.loops import early_signals as early
from outbox.model.plain_text import guard

_CHECKS = (["health"], ["health", "--live"])
_WORKERS = (["run"], ["workflows", "run"])
TYPE_CHECKING = False  # the module typing takes longer to load than everything else here
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    if any(sys.argv[1 : 1 + len(words)] == words for words in _WORKERS):
        early.listen()
    _fill_streams()
    if sys.argv[1:] in _CHECKS:
        _check()
    gc.set_threshold(50_000)  # what is loaded stays: looking for garbage in it took a twelfth of the start
    from outbox.cli import main as cli  # noqa: PLC0415 - signals are heard before all else is loaded

    cli.main()


def _check() -> NoReturn:
    """Ask the worker on this machine how it is, and leave the process with the answer."""
    from outbox.model.errors import OutboxError  # noqa: PLC0415 - only a check needs it
    from outbox.observability.probe import ask  # noqa: PLC0415 - only a check needs it

    guard()
    try:
        well, line = ask(live="--live" in sys.argv)
    except OutboxError as error:
        sys.stderr.write(f"outbox: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"{line}\n")
    sys.exit(0 if well else 1)


def _fill_streams() -> None:
    """Open standard streams that are closed: else the first connection would get their numbers, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123 - till the end


if __name__ == "__main__":
    main()
