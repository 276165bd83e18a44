"""The command `outbox health`, for a container's health check."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from outbox.observability.probe import ask


def health(
    live: Annotated[
        bool, typer.Option("--live", help="Only whether its loops turn, not whether it can deliver.")
    ] = False,
) -> None:
    """Ask the worker on this machine whether it is ready.

    Exit 0 if it is, 1 if not, and why in one line.
    """
    well, line = ask(live=live)
    sys.stdout.write(f"{line}\n")
    if not well:
        raise typer.Exit(1)
