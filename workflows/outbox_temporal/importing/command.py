"""The command `outbox import`: parses, calls, shows, and says by its exit code how it went."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from outbox.cli.consent import consent
from outbox.cli.progress import progress
from outbox.cli.session import ask, with_store
from outbox.config import settings as config
from outbox.loops.signals import Stop, stopping
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.postgres.address import Where
from outbox_temporal.importing import mapping as mappings
from outbox_temporal.importing.journal import TIMEOUT_S, Books, Import
from outbox_temporal.importing.mapping import ImportMapping
from outbox_temporal.importing.mover import RowMover
from outbox_temporal.importing.report import ImportReport
from outbox_temporal.importing.rollback import Rollback, Started
from outbox_temporal.importing.source import FLAG, opened
from outbox_temporal.importing.temporal_lookup import temporal
from outbox_temporal.importing.verify import verify
from outbox_temporal.importing.view import SHOWN, show
from outbox_temporal.sink import settings as sink_settings
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.sink.frontend import DEFAULT_NAMESPACE, profile

Advance = Callable[[int], object]
Work = Callable[[ImportMapping, ImportReport, Books], Awaitable[None]]
_GO_ON = "the same command goes on with the rest"


def import_rows(
    mapping: Annotated[Path, typer.Argument(help="File that says how a row becomes a workflow.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, show samples and every row that would be refused; change nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--verify", help="Compare the rows that were moved with the workflows in Temporal.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Take back what has not been delivered, so that it can be moved again.")
    ] = False,
    started: Annotated[
        str, typer.Option(help="What a rollback does with workflows that were started: list, cancel or terminate.")
    ] = "list",
    source_url: Annotated[
        str | None,
        typer.Option(FLAG, envvar="IMPORT_SOURCE_URL", help="Where the rows are. Default: DATABASE_URL."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="File for the whole report, as JSON.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rows in one transaction.")] = 500,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Roll back without being asked.")] = False,
) -> None:
    """Move active workflows out of another engine's tables into messages, each row once. A second run goes on.

    Exit codes: 0 every row is moved, or in order, or taken back; 1 rows were refused, are not in order, or stay; 2 the
    mapping or a setting is wrong; 3 schema; 130 interrupted, the same command goes on.
    """
    if check and (dry_run or rollback):
        raise ConfigurationError("--verify only reads: leave out --dry-run and --rollback")
    if started not in get_args(Started):
        raise ConfigurationError(f"--started is {started!r}: use {', '.join(get_args(Started))}")
    chosen, settings = mappings.load(mapping), config.load()
    if rollback:
        result = ImportReport.of(chosen, "rollback, dry run" if dry_run else "rollback")
        work: Work = partial(_roll_back, started=cast("Started", started), dry_run=dry_run, yes=yes)
    elif check:
        result, work = ImportReport.of(chosen, "verify"), _verify
    else:
        result = ImportReport.of(chosen, "dry run" if dry_run else "import")
        dsn = source_url or settings.dsn
        work = partial(_move, dsn=dsn, foreign=bool(source_url), batch=batch, dry_run=dry_run)
    try:
        run = partial(with_store, settings, Books, name="outbox import", answer_timeout_s=TIMEOUT_S)
        ask(partial(run, lambda books: work(chosen, result, books)))
    except Exception:
        if result.done:
            sys.stderr.write(f"outbox: broke off after {result.done} of {result.rows} rows; {_GO_ON}\n")
        raise
    _show(result, report)


async def _move(
    chosen: ImportMapping, result: ImportReport, books: Books, *, dsn: Where, foreign: bool, batch: int, dry_run: bool
) -> None:
    """Move the rows, or only say what would become of them."""
    async with opened(chosen, dsn, foreign=foreign) as source:
        allowed = Allowed(sink_settings.load(), profile().namespace or DEFAULT_NAMESPACE)
        mover = RowMover(chosen, books, result, allowed, dry_run=dry_run)
        result.rows = await source.count()
        async with _watched(result, "looked at" if dry_run else "done with") as (stop, advance):
            await mover.run(source, batch, stop, advance)


async def _verify(chosen: ImportMapping, result: ImportReport, books: Books) -> None:
    """Compare the rows with Temporal."""
    found = await _begun(chosen, books)
    result.rows = found.moved
    async with temporal() as lookup, _watched(result, "compared") as (stop, advance):
        await verify(books, found, lookup, result, stop, advance)


async def _roll_back(
    chosen: ImportMapping, result: ImportReport, books: Books, *, started: Started, dry_run: bool, yes: bool
) -> None:
    """Take rows back, or only say which."""
    found = await _begun(chosen, books)
    result.rows = found.moved
    if not dry_run and not yes:
        _consent(chosen.name, found, started)
    async with AsyncExitStack() as stack:
        lookup = None if started == "list" else await stack.enter_async_context(temporal())
        stop, advance = await stack.enter_async_context(_watched(result, "looked at" if dry_run else "done with"))
        await Rollback(books, found, result, started=started, lookup=lookup, dry_run=dry_run).run(stop, advance)


async def _begun(chosen: ImportMapping, books: Books) -> Import:
    """The import in its present state. Raises OutboxError if there is none."""
    found = await books.read_import(chosen.name)
    if found is None:
        raise OutboxError(f"nothing has been imported as {chosen.name!r}")
    return found


@asynccontextmanager
async def _watched(result: ImportReport, doing: str) -> AsyncIterator[tuple[Stop, Advance]]:
    """Show progress and watch for signals while the block runs."""
    with progress(doing, result.rows) as bar:
        async with stopping() as stop:

            def advance(count: int) -> None:
                result.done += count
                bar(count)

            yield stop, advance
        result.interrupted = stop.asked


def _consent(name: str, found: Import, started: Started) -> None:
    ends = "" if started == "list" else f", and {started} the workflows that they started"
    cure = "use --yes to roll back without being asked, or --dry-run to look"
    consent(f"Roll back {found.moved} rows of {name}{ends}?", cure=cure)


def _show(result: ImportReport, path: Path | None) -> None:
    """Show the report, keep it, and leave with its exit code."""
    if path is None and len(result.findings) > SHOWN:
        path = Path(f"{result.name}.report.json")
    show(result, path)
    sys.stdout.flush()
    for warning in result.warnings:
        sys.stderr.write(f"outbox: warning: {warning}\n")
    if path is not None:
        result.write(path)
    if result.interrupted:
        sys.stderr.write(f"outbox: interrupted after {result.done} of {result.rows} rows; {_GO_ON}\n")
        raise typer.Exit(130)
    if result.findings:
        raise typer.Exit(1)
