"""The command `outbox audit`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

import typer

from outbox.cli.arguments import duration_s
from outbox.cli.format import moment
from outbox.cli.options import with_options
from outbox.cli.progress import progress
from outbox.cli.session import ask_store
from outbox.config import settings as config
from outbox.loops.signals import stopping
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.model.plain_text import plain
from outbox_temporal.audit.executions import Executions, TemporalRefused, started_between
from outbox_temporal.audit.findings import AuditReport
from outbox_temporal.audit.history import AuditHistory, Extent
from outbox_temporal.audit.reconcile import Audit, completing
from outbox_temporal.audit.records import Scope
from outbox_temporal.audit.view import show, write_finding, write_summary
from outbox_temporal.sdk.client import connect
from outbox_temporal.sink import settings
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Target

_SHOWN = 20
_NO_LIMIT = sys.maxsize


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What to look at, how fast, and what to do about it."""

    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: an age such as 90m or 2d, or 2026-11-21T08:00 (UTC).")
    ] = "24h"
    until: Annotated[str, typer.Option(metavar="TIME", help="Until then, written in the same way.")] = "0s"
    settle_s: Annotated[
        float,
        typer.Option(
            "--settle",
            metavar="AGE",
            parser=duration_s,
            help="Leave out what is younger: it may be on its way. Default: 10s.",
        ),
    ] = 10.0
    namespaces: Annotated[
        list[str],
        typer.Option("--namespace", help="Look here too, beside the connection's and those that messages name."),
    ] = field(default_factory=list)
    workflows: Annotated[
        list[str],
        typer.Option(
            "--type", help="Only this outbox starts workflows of this type: look at these only, and report all."
        ),
    ] = field(default_factory=list)
    prefixes: Annotated[list[str], typer.Option("--prefix", help="The same for workflow ids that begin so.")] = field(
        default_factory=list
    )
    retention_s: Annotated[
        float | None,
        typer.Option(
            "--retention",
            metavar="AGE",
            parser=duration_s,
            help="How long Temporal keeps workflows, instead of asking it.",
        ),
    ] = None
    rate: Annotated[float, typer.Option(min=0.1, help="Lists to ask Temporal for in a second, at most.")] = 5.0
    concurrency: Annotated[int, typer.Option(min=1, max=100, help="Requests to Temporal in flight, at most.")] = 4
    terminate: Annotated[
        bool,
        typer.Option(
            "--terminate-ghosts",
            help="End running workflows without a message here. Run without it first. Needs --type or --prefix.",
        ),
    ] = False


@with_options
def audit(
    wish: AuditOptions,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Findings to show of each kind; default: 20, with --json all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line; the last is a summary.")] = False,
) -> None:
    """Compare the history with Temporal, and explain differences.

    Exit code 0: no fault found. 1: faults, or something could not be compared. 2: usage. 130: interrupted, after
    showing what was found so far.
    """
    if wish.terminate and not (wish.workflows or wish.prefixes):
        raise ConfigurationError(
            "--terminate-ghosts ends running workflows without a message in this database: name the workflows that "
            "only this outbox starts, with --type or --prefix"
        )
    chosen = config.load()
    if not chosen.history:
        raise ConfigurationError("OUTBOX_HISTORY is false: without a history there is nothing to compare Temporal with")
    report = AuditReport(limit or (_NO_LIMIT if as_json else _SHOWN), show=write_finding if as_json else None)
    scope = ask_store(AuditHistory, partial(compare, wish, chosen.history_days, report), chosen)
    (write_summary if as_json else show)(report, scope)
    sys.stdout.flush()
    _leave(report)


def _leave(report: AuditReport) -> None:
    """Say what the findings do not, and set the exit code."""
    for trouble in report.troubles:
        sys.stderr.write(f"outbox: not compared: {trouble}\n")
    if report.interrupted:
        sys.stderr.write("outbox: interrupted: this is what was found so far\n")
        raise typer.Exit(130)
    if report.faults or report.troubles:
        raise typer.Exit(1)


async def compare(wish: AuditOptions, history_days: int, report: AuditReport, ledger: AuditHistory) -> Scope:
    """Compare both sides as asked, and return what that came to. Findings and troubles go into the report."""
    path = settings.load().routes_file()
    routes = None if path is None else Routes.load(path)
    now = await ledger.audit_clock()
    since, until = window(wish, now)
    horizon = now - timedelta(days=history_days)
    if since < horizon:
        sys.stderr.write(f"outbox: the history reaches back to {moment(horizon)} only (OUTBOX_HISTORY_DAYS)\n")
        since = horizon
    if since >= until:
        raise ConfigurationError(
            f"there is no history before {moment(until)} any more (OUTBOX_HISTORY_DAYS): nothing to compare"
        )
    client = await connect()
    executions = Executions(client, rate=wish.rate, concurrency=wish.concurrency)
    extent = await ledger.audit_extent(since, until)
    retention_s = await _retentions(wish, client.namespace, _named(extent, routes), executions, report)
    kept_since = max(horizon, extent.kept_since)  # days may have been pruned, or other workers keep fewer
    scope = Scope(since, until, now, kept_since, retention_s, tuple(wish.workflows), tuple(wish.prefixes))
    work = Audit(ledger, executions, scope, report, completing(routes, client.namespace))
    await _carry_out(work, scope, extent, executions, report)
    if wish.terminate:
        await _terminate(work, executions, report)
    return scope


async def _terminate(work: Audit, executions: Executions, report: AuditReport) -> None:
    """Terminate the ghosts, unless the audit could not see everything."""
    if fault := await work.home_fault():
        report.troubles.append(f"no ghost was terminated: {fault} (`outbox adopt`, if it is meant to be the outbox)")
        return
    if report.interrupted or report.troubles:
        report.troubles.append("no ghost was terminated, because not everything could be compared")
        return
    for run in work.ghosts.values():
        ended = await executions.terminate(run, "outbox audit: its message is nowhere in the database")
        done = "terminated" if ended else "not terminated: it has ended"
        sys.stderr.write(plain(f"outbox: {run.namespace}/{run.workflow_id} run {run.run_id}: {done}") + "\n")


def window(wish: AuditOptions, now: datetime) -> tuple[datetime, datetime]:
    """From when until when. Raises ConfigurationError for times that are none, or leave nothing between them."""
    since, until = _time(wish.since, now), min(_time(wish.until, now), now - timedelta(seconds=wish.settle_s))
    if since >= until:
        raise ConfigurationError(
            f"--since {wish.since} and --until {wish.until} leave no time between them, what is younger than "
            f"--settle ({wish.settle_s:g} s) left out"
        )
    return since, until


def _time(text: str, now: datetime) -> datetime:
    try:
        return now - timedelta(seconds=duration_s(text))
    except ConfigurationError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is no time: write an age such as 90m, 24h or 2d, or 2026-11-21T08:00 (UTC unless it says more)"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _named(extent: Extent, routes: Routes | None) -> set[str]:
    """The namespaces that messages name, or their routes."""
    targets = [route.target for route in routes.all if "namespace" not in route.texts] if routes else []
    routed = {target.namespace for target in targets if isinstance(target, Target)}
    return {*extent.namespaces, *(namespace for namespace in routed if namespace)}


async def _retentions(
    wish: AuditOptions, own: str, named: set[str], executions: Executions, report: AuditReport
) -> dict[str, float]:
    """The namespaces to look at, each with how long it keeps what has ended.

    One named on the command line must answer. One that only messages name is left out, with a line that says so.
    """
    retention_s: dict[str, float] = {}
    for namespace in [own, *wish.namespaces, *sorted(named)]:
        if namespace in retention_s:
            continue
        if wish.retention_s is not None:
            retention_s[namespace] = wish.retention_s
            continue
        try:
            retention_s[namespace] = await executions.retention_s(namespace)
        except TemporalRefused as error:
            if namespace in (own, *wish.namespaces):
                cure = "correct TEMPORAL_NAMESPACE or --namespace, or give with --retention how long it keeps runs"
                raise TemporalRefused(f"{error}: {cure}") from error
            report.troubles.append(str(error))
    return retention_s


async def _carry_out(work: Audit, scope: Scope, extent: Extent, executions: Executions, report: AuditReport) -> None:
    """Compare from both sides. The first signal ends the work after its page.

    An error ends the work. The report shows it beside what was found before it.
    """

    def interrupt() -> None:
        work.stopping = report.interrupted = True

    try:
        async with stopping(interrupt):
            with progress("messages", extent.messages) as advance:
                await work.messages(advance)
            query = started_between(scope.since, scope.until, scope.workflows, scope.prefixes)
            for namespace in scope.retention_s:
                if not work.stopping:
                    with progress(f"runs in {namespace}", await executions.count(namespace, query)) as advance:
                        await work.runs(namespace, advance)
    except* OutboxError as group:
        report.troubles += dict.fromkeys(_lines(group))


def _lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _lines(inner)
    else:
        yield str(error)
