"""The entry of the command `outbox`. A health check comes every few seconds, and is spared the rest of the program."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from outbox.errors import OutboxError
from outbox.probe import ask

_CHECKS = (["health"], ["health", "--live"])


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    _fill_streams()
    if sys.argv[1:] in _CHECKS:
        try:
            well, line = ask(live="--live" in sys.argv)
        except OutboxError as error:
            sys.stderr.write(f"outbox: {error}\n")
            sys.exit(error.exit_code)
        sys.stdout.write(f"{line}\n")
        sys.exit(0 if well else 1)
    gc.set_threshold(50_000)  # what is loaded stays: looking for garbage in it took a twelfth of the start
    from outbox import cli  # noqa: PLC0415 - see above

    cli.main()


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
