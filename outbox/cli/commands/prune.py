"""The command `outbox prune`: deletes what has outlived its retention, beside running workers."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import anyio
import typer
from rich.filesize import decimal

from outbox.cli.arguments import duration_s
from outbox.cli.consent import consent
from outbox.cli.format import span
from outbox.cli.progress import progress
from outbox.cli.session import ask_store
from outbox.config import settings as config
from outbox.loops.signals import Stop, stopping
from outbox.model.errors import ConfigurationError, DatabaseUnavailable
from outbox.model.json_output import json_output
from outbox.store.retention import Prunable, Retention

_DAY_S = 86_400.0
_BATCH = 1000
_TRIES = 3
_PAUSE_S = 0.5
_LABEL = 14


@dataclass(slots=True)
class Pruned:
    """How far it came."""

    days: int = 0
    messages: int = 0
    """Of the history."""
    dead_letters: int = 0
    dedup_keys: int = 0
    workers: int = 0
    interrupted: bool = False
    left: str | None = None
    """Why some history had to stay."""


def prune(
    history_older_than: Annotated[
        float | None,
        typer.Option(
            parser=duration_s,
            metavar="AGE",
            help="Drop days of history that are older than this. Default: OUTBOX_HISTORY_DAYS.",
        ),
    ] = None,
    dead_older_than: Annotated[
        float | None,
        typer.Option(
            parser=duration_s, metavar="AGE", help="Delete dead letters that are older than this: 90d. Default: none."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count exactly what would go, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Delete history and dead letters that are old enough.

    Never a message that is not settled. Without options: what the workers themselves delete once an hour, history older
    than OUTBOX_HISTORY_DAYS and dedup keys after their window. Dead letters stay unless --dead-older-than says
    which go.
    """
    if as_json and not (yes or dry_run):
        raise ConfigurationError("nothing was done: --json does not ask: use --yes as well, or --dry-run")
    settings = config.load()
    keep_s = settings.history_days * _DAY_S if history_older_than is None else history_older_than
    found = ask_store(Retention, lambda retention: retention.prunable(keep_s, dead_older_than), settings)
    if not as_json and (dry_run or not yes):
        _show(found, keep_s, dead_older_than, given=history_older_than is not None)
    if dry_run:
        _say(as_json, _as_json(found), "nothing was done")
        return
    if not yes and _anything(found):
        consent("Delete this for ever?", cure="use --yes to prune without being asked, or --dry-run to look")
    done = Pruned()
    try:
        ask_store(Retention, partial(_prune, found, keep_s, done), settings)
    finally:  # also before the line of an error
        _say(as_json, {**asdict(done), "dry_run": False}, f"pruned: {_sum(done)}")
    _end(done)


async def _prune(found: Prunable, keep_s: float, done: Pruned, retention: Retention) -> None:
    """Delete what was found, counting in `done`, until everything is gone or a signal stops it."""
    async with stopping() as stop:
        await _dead_letters(found, done, retention, stop)
        await _days(found, done, retention, stop)
        while not stop.asked and (count := await retention.prune_strays(found.history_before, _BATCH)):
            done.messages += count
        while not stop.asked and (count := await retention.forget_keys(_BATCH)):
            done.dedup_keys += count
        if not stop.asked:
            done.workers += await retention.forget_workers(keep_s)
    done.interrupted = stop.asked


async def _dead_letters(found: Prunable, done: Pruned, retention: Retention, stop: Stop) -> None:
    if found.dead_before is None:
        return
    with progress("dead letters deleted", found.dead_letters) as advance:
        while not stop.asked and (count := await retention.prune_dead_letters(found.dead_before, _BATCH)):
            done.dead_letters += count
            advance(count)


async def _days(found: Prunable, done: Pruned, retention: Retention, stop: Stop) -> None:
    with progress("days of history dropped", len(found.days)) as advance:
        for place, day in enumerate(found.days):
            if stop.asked:
                return
            try:
                dropped = await _insistently(partial(retention.prune_day, day.part, found.history_before))
            except DatabaseUnavailable as error:
                done.left = f"{len(found.days) - place} days of history stay: {error}"
                return
            done.days += dropped
            done.messages += day.messages if dropped else 0
            advance(1)


async def _insistently(drop: Callable[[], Awaitable[bool]]) -> bool:
    """Try a few times: waiting long for a reader to end would hold up every settle behind us."""
    for _ in range(_TRIES - 1):
        try:
            return await drop()
        except DatabaseUnavailable:
            await anyio.sleep(_PAUSE_S)
    return await drop()


def _end(done: Pruned) -> None:
    if done.left:
        sys.stderr.write(f"outbox: {done.left}; a transaction that reads the history may be in the way: come again\n")
    if done.interrupted:
        sys.stderr.write("outbox: interrupted; the same command goes on with the rest\n")
        raise typer.Exit(130)
    if done.left:
        raise typer.Exit(1)


def _anything(found: Prunable) -> bool:
    return bool(found.days or found.strays or found.dead_letters or found.dedup_keys or found.workers)


def _show(found: Prunable, keep_s: float, dead_s: float | None, *, given: bool) -> None:
    """What would go, a line each, and by which age."""
    messages = sum(day.messages for day in found.days) + found.strays
    size = decimal(sum(day.bytes or 0 for day in found.days))
    lines = {
        "history": f"{len(found.days)} days, {messages:,} messages, {size}; older than {span(keep_s)}",
        "dead letters": "all stay; --dead-older-than says which go",
        "dedup keys": f"{found.dedup_keys:,}; their windows are over",
        "workers": f"{found.workers:,}; not heard of for as long as the history is kept",
    }
    if dead_s is not None:
        lines["dead letters"] = f"{found.dead_letters:,}; dead for more than {span(dead_s)}"
    for name, line in lines.items():
        sys.stdout.write(f"{name:{_LABEL}}{line}\n")
    if not given:
        sys.stdout.write(f"{span(keep_s)} is what OUTBOX_HISTORY_DAYS says\n")
    sys.stdout.flush()


def _sum(done: Pruned) -> str:
    """What was done, without what was not."""
    counts = {
        "days of history": done.days,
        "messages of history": done.messages,
        "dead letters": done.dead_letters,
        "dedup keys": done.dedup_keys,
        "workers": done.workers,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing"


def _as_json(found: Prunable) -> dict[str, Any]:
    """The same fields as after the deed, as far as it would go."""
    would = Pruned(
        days=len(found.days),
        messages=sum(day.messages for day in found.days) + found.strays,
        dead_letters=found.dead_letters,
        dedup_keys=found.dedup_keys,
        workers=found.workers,
    )
    return {**asdict(would), "dry_run": True}


def _say(as_json: bool, report: dict[str, Any], line: str) -> None:
    if as_json:
        sys.stdout.buffer.write(json_output(report, indent=True))
    else:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
