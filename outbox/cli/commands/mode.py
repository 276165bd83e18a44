"""The command `outbox mode`: what wakes each worker, and the switch for all of them."""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic
from typing import Annotated, Any

import anyio
import typer
from rich.markup import escape
from rich.table import Table

from outbox.cli.console import Console
from outbox.cli.session import ask_store
from outbox.model.errors import ConfigurationError
from outbox.postgres.pool import Pool
from outbox.store.overview import Overview, is_living
from outbox.store.rules import Rules
from outbox.wakeup.selection import MODES, SWITCH
from outbox.worker.heartbeat import HEARTBEAT_S

_SWITCHED_WITHIN_S = 3.0
"""How long the command waits for the workers to switch. Workers that listen do it at once, others within a second."""


def mode(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="[MODE]", help=f"{', '.join(MODES)}, or default for each worker's own OUTBOX_MODE."),
    ] = None,
) -> None:
    """Show what wakes each worker, or switch all of them.

    Running workers switch within a second. The database keeps the mode, also for workers that start later, until it is
    set to default.
    """
    if wanted is not None and wanted not in (*MODES, "default"):
        raise ConfigurationError(f"mode is {wanted!r}: use {', '.join(MODES)} or default")
    workers = ask_store(_statements, partial(_switch_mode, wanted=wanted))
    show_modes(workers)
    late = [worker["name"] for worker in workers if wanted is not None and not _obeys(worker, wanted)]
    if late:
        sys.stderr.write(f"outbox: the switch is set, but no answer yet from {', '.join(late)}\n")
    unable = [worker["name"] for worker in workers if wanted == "realtime" and not _has_realtime(worker)]
    if unable:
        sys.stderr.write(
            f"outbox: the switch is set, but only polls without Realtime's settings: {', '.join(unable)}\n"
        )
    if late or unable:
        raise typer.Exit(1)


def _statements(pool: Pool, schema: str) -> tuple[Rules, Overview]:
    return Rules(pool, schema), Overview(pool, schema)


async def _switch_mode(statements: tuple[Rules, Overview], *, wanted: str | None) -> list[dict[str, Any]]:
    """Set the switch if one is given, and return the live workers once they have switched or the time is up."""
    rules, overview = statements
    if wanted == "realtime":
        living = _living(await overview.workers())
        if living and not any(map(_has_realtime, living)):
            raise ConfigurationError(
                "no running worker can use Realtime: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY for them and "
                "restart them; the switch was left as it was"
            )
    if wanted is not None:
        await rules.set_switch(SWITCH, None if wanted == "default" else wanted)
    end_s = monotonic() + (_SWITCHED_WITHIN_S if wanted is not None else 0.0)
    while True:
        workers = _living(await overview.workers())
        if monotonic() >= end_s or all(_obeys(worker, wanted) for worker in workers):
            return workers
        await anyio.sleep(0.1)


def _living(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [worker for worker in workers if is_living(worker, 2 * HEARTBEAT_S)]


def _obeys(worker: dict[str, Any], wanted: str | None) -> bool:
    detail = worker["detail"]
    return bool(detail.get("mode_from") != "outbox mode" if wanted == "default" else detail.get("mode") == wanted)


def _has_realtime(worker: dict[str, Any]) -> bool:
    """Whether Realtime could wake a worker. A worker of an earlier version does not report it and counts as yes."""
    return "realtime" in worker["detail"].get("configured", ["realtime"])


def show_modes(workers: list[dict[str, Any]]) -> None:
    """What wakes each worker."""
    table = Table("worker", "mode", "asked for by", "sources", box=None)
    for worker in workers:
        detail = worker["detail"]
        sources = ", ".join(f"{name}: {state}" for name, state in detail.get("sources", {}).items())
        shown = [worker["name"], detail.get("mode", ""), detail.get("mode_from", ""), sources or "polling only"]
        table.add_row(*map(escape, shown))
    Console(highlight=False).print(table if workers else "no worker is running")
