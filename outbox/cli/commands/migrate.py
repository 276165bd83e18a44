"""The command `outbox migrate`: brings the schema to this version, or says what that would do."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from outbox.cli.format import show_migrated, show_steps
from outbox.cli.session import ask
from outbox.config import settings as config
from outbox.store import migrations


def migrate(
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="List the migrations and change nothing; exit 3 unless this version can work with them."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied and change nothing.")] = False,
) -> None:
    """Bring the outbox schema in the database to this version."""
    settings = config.load()
    if not status and not dry_run:
        applied = ask(partial(migrations.migrate, settings.dsn, settings.schema_name, warn=_warn))
        show_migrated(applied, settings.schema_name)
        return
    steps = ask(partial(migrations.inspect, settings.dsn, settings.schema_name))
    shown = steps if status else [step for step in steps if step.state != "applied"]
    if not show_steps(shown, settings.schema_name) and status:
        raise typer.Exit(3)


def _warn(line: str) -> None:
    sys.stderr.write(f"outbox: {line}\n")
