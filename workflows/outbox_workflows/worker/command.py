"""The command `outbox workflows`: the process that carries workflows out, and the schema that they work on."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Annotated

import typer
from temporalio.service import RPCError

from outbox.cli.arguments import duration_s
from outbox.cli.format import show_migrated, show_steps
from outbox.cli.session import ask
from outbox.config import settings as config
from outbox.loops.signals import stop_on_signals
from outbox.observability import logs as outbox_logs
from outbox.observability.otlp import exporting
from outbox.store.migrations import inspect, migrate
from outbox_temporal.audit.executions import TemporalRefused
from outbox_temporal.sdk.client import connect
from outbox_workflows.approval.repair import repair
from outbox_workflows.shared.database import open_application
from outbox_workflows.shared.migrations import APPLICATION
from outbox_workflows.worker import logs, settings
from outbox_workflows.worker.health import serving
from outbox_workflows.worker.runner import WorkflowWorker
from outbox_workflows.worker.settings import WorkflowSettings

app = typer.Typer(help="Run the included workflows that the outbox starts.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Run the included workflows that the outbox starts."""


@app.command()
def run(
    task_queue: Annotated[str | None, typer.Option(help="Task queue to poll.")] = None,
    families: Annotated[str | None, typer.Option(help="Workflow families, with commas between them.")] = None,
) -> None:
    """Run a workflow worker until SIGTERM, SIGINT or SIGHUP, then drain. A second signal ends it at once."""
    reading = config.read()
    outbox_logs.configure(reading.settings.log_level, reading.settings.log_format)
    logs.configure()
    chosen = config.load()
    own = settings.load(task_queue=task_queue, families=families)
    if not ask(partial(_run, chosen, own)):
        raise typer.Exit(1)


@app.command("migrate")
def migrate_command(
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="List the migrations and change nothing; exit 3 unless this version can work with them."
        ),
    ] = False,
) -> None:
    """Bring the application's schema, on which the workflows work, to this version. It needs the outbox's schema."""
    chosen = config.load()
    own = APPLICATION.name(chosen.schema_name)
    if status:
        steps = ask(partial(inspect, chosen.dsn, chosen.schema_name, APPLICATION))
        if not show_steps(steps, own):
            raise typer.Exit(3)
        return
    show_migrated(ask(partial(migrate, chosen.dsn, chosen.schema_name, APPLICATION)), own)


@app.command("mend")
def repair_command(
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only workflows that ended since, such as 2d; default: all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be ended.")] = False,
) -> None:
    """End approvals that are still pending although their workflow was terminated, timed out or failed."""
    chosen = config.load()
    within = None if since is None else timedelta(seconds=duration_s(since))
    count = ask(partial(_repair, chosen, within, dry_run=dry_run))
    sys.stdout.write(f"{count} {'would be ended' if dry_run else 'ended'}\n")


async def _repair(chosen: config.Settings, since: timedelta | None, *, dry_run: bool) -> int:
    """Repair the approvals, print each, and return how many there were."""
    client = await connect()
    count = 0
    async with open_application(chosen.dsn, chosen.schema_name, size=1) as application:
        try:
            async for repaired in repair(client, application, since=since, dry_run=dry_run):
                count += 1
                sys.stdout.write(f"approval {repaired.approval_id} of tenant {repaired.tenant_id}: {repaired.reason}\n")
        except RPCError as error:
            raise TemporalRefused(f"Temporal does not answer: {error}") from error
    return count


async def _run(chosen: config.Settings, own: WorkflowSettings) -> bool:
    """Run the worker under signals; return whether it ended by itself, not by a second signal."""
    worker = WorkflowWorker(chosen, own)
    endpoints = serving(chosen, worker) if chosen.http_port else nullcontext()
    async with (
        stop_on_signals(worker),
        exporting("outbox-workflows", outbox_logs.warn_of) as tracer,
        endpoints,
    ):
        await worker.run(tracer)
        return True
    return False
