"""The commands `outbox dead …`: look at dead letters, put them back, or delete them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Annotated
from uuid import UUID

import typer

from outbox.cli.arguments import REASONS, duration_s, message_id, reason
from outbox.cli.batches import Tally, in_batches
from outbox.cli.commands.dead.requeue_risk import Memory, ask_sink, in_doubt, plan
from outbox.cli.commands.dead.view import show_dead_letter, show_dead_letters, show_risk, show_totals, write_json
from outbox.cli.consent import consent
from outbox.cli.format import named
from outbox.cli.options import with_options
from outbox.cli.progress import progress
from outbox.cli.session import ask, ask_store
from outbox.config import settings as config
from outbox.model.errors import ConfigurationError
from outbox.model.sink import SinkContext
from outbox.store.dead_letters import DeadLetter, DeadLetters, DeadLetterTotal, Filter, FoundDeadLetter


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters a command is about."""

    message_ids: Annotated[list[UUID] | None, typer.Argument(metavar="MESSAGE_ID", parser=message_id)] = None
    topic: Annotated[
        str | None, typer.Option(help="Of this topic; `orders.*` for every topic that begins with `orders.`.")
    ] = None
    kind: Annotated[str | None, typer.Option(help="With this kind of last error, for example INVALID_ARGUMENT.")] = None
    reason: Annotated[str | None, typer.Option(parser=reason, help=f"{REASONS}.")] = None
    key: Annotated[str | None, typer.Option(help="With this key.")] = None
    older_than: Annotated[
        float | None, typer.Option(parser=duration_s, metavar="AGE", help="Dead for longer: 90m, 2d.")
    ] = None
    newer_than: Annotated[
        float | None, typer.Option(parser=duration_s, metavar="AGE", help="Dead for a shorter time.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many: those that died last.")] = None

    @property
    def filter(self) -> Filter:
        """The same without the limit."""
        ids = self.message_ids or None
        return Filter(self.topic, self.kind, self.reason, self.key, self.older_than, self.newer_than, ids)


@dataclass(frozen=True, slots=True)
class Bulk(Chosen):
    """Which dead letters to move, and how careful to be."""

    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False


Move = Callable[[DeadLetters, Sequence[UUID]], Awaitable[dict[UUID, bool]]]

_PAST = {"requeue": "requeued", "discard": "discarded"}
_SHOWN = 20
_SAMPLE = 5
_PAGE = 1000

app = typer.Typer(help="Look at dead letters, put them back, or delete them.", no_args_is_help=True)


@app.command("list")
@with_options
def list_command(
    chosen: Chosen,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, without payloads.")] = False,
) -> None:
    """List dead letters, the latest first, and count them by reason and kind.

    The table shows 20 unless --limit says otherwise; --json prints all.
    """
    which, limit = chosen.filter, chosen.limit

    async def read(letters: DeadLetters) -> tuple[list[DeadLetterTotal], list[DeadLetter], int]:
        found = [letter.message_id for letter in await letters.find_dead_letters(which, limit)]
        for start in range(0, len(found) if as_json else 0, _PAGE):
            write_json(await letters.read_dead_letters(found[start : start + _PAGE]), whole=False)
        if as_json:
            return [], [], 0
        asked = found[: limit or _SHOWN]
        return (
            await letters.dead_letter_totals(which),
            await letters.read_dead_letters(asked),
            0 if limit else len(found) - len(asked),
        )

    totals, shown, more = ask_store(DeadLetters, read)
    if not as_json:
        show_totals(totals)
        show_dead_letters(shown)
    if more:
        sys.stderr.write(f"outbox: {more} more are not shown: add --limit {len(shown) + more}, or --json for all\n")


@app.command()
def show(
    message_ids: Annotated[list[UUID], typer.Argument(metavar="MESSAGE_ID", parser=message_id)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show dead letters whole: payload, target, headers, and every error that is kept."""
    letters = ask_store(DeadLetters, lambda store: store.read_dead_letters(message_ids))
    if as_json:
        write_json(letters, whole=True)
    else:
        for letter in letters:
            show_dead_letter(letter)
    if _say_missing(message_ids, {letter.message_id for letter in letters}):
        raise typer.Exit(1)


@app.command()
@with_options
def requeue(
    bulk: Bulk,
    force: Annotated[
        bool, typer.Option("--force", help="Also those that the sink may have forgotten: they may start twice.")
    ] = False,
    retention: Annotated[
        float | None,
        typer.Option(
            parser=duration_s, metavar="AGE", help="How long the sink recognises a repeat, instead of asking it."
        ),
    ] = None,
) -> None:
    """Put dead letters back under their message ids, due at once and with nothing counted; exit 1 if any has to stay.

    One stays dead if a live message has its id or dedup_key. It also stays if it was first tried longer ago than the
    sink recognises a repeat (Temporal: the namespace's retention), because its workflow might start a second time.
    """
    found, missing = _choose(bulk)
    planned = plan(found, _memory(found, retention), force=force)
    for risk in planned.risky:
        show_risk(risk, force=force)
    _say_living(planned.living)
    done = _bulk("requeue", DeadLetters.requeue, planned.go, bulk)
    if not bulk.dry_run and (missing or done < len(found)):
        raise typer.Exit(1)


@app.command()
@with_options
def discard(
    bulk: Bulk,
) -> None:
    """Delete dead letters for ever, with their payloads and errors."""
    found, missing = _choose(bulk)
    done = _bulk("discard", DeadLetters.discard, [letter.message_id for letter in found], bulk)
    if not bulk.dry_run and (missing or done < len(found)):
        raise typer.Exit(1)


def _choose(bulk: Bulk) -> tuple[list[FoundDeadLetter], bool]:
    """The dead letters that a bulk command is about, and whether some that were named are not there."""
    which, limit = bulk.filter, bulk.limit
    if which == Filter() and not bulk.everything:
        raise ConfigurationError("say which dead letters: message ids, a filter such as --topic, or --all")
    found = ask_store(DeadLetters, lambda letters: letters.find_dead_letters(which, limit))
    named_only = which == Filter(message_ids=which.message_ids) and limit is None
    missing = _say_missing(which.message_ids or [], {letter.message_id for letter in found}) if named_only else False
    return found, missing


def _memory(found: Sequence[FoundDeadLetter], retention_s: float | None) -> Callable[[str | None], Memory]:
    """How long the sink recognises a repeat in a namespace: as the person says, or as the sink does."""
    if retention_s is not None:
        return lambda _: retention_s
    namespaces = in_doubt(found)
    if not namespaces:
        return lambda _: inf
    settings = config.load()
    context = SinkContext(f"{settings.worker_name} (outbox dead requeue)", settings.deliver_timeout_s)
    return ask(partial(ask_sink, config.load_sink(settings.sink), context, namespaces)).__getitem__


def _bulk(verb: str, move: Move, message_ids: Sequence[UUID], how: Bulk) -> int:
    """Do it, after showing what and asking, and return how many were done."""
    if not message_ids:
        sys.stdout.write(f"no dead letter to {verb}\n")
        return 0
    if not how.yes:
        _preview(message_ids)
    if how.dry_run:
        sys.stdout.write(f"{len(message_ids)} would be {_PAST[verb]}; nothing was done\n")
        return 0
    if not how.yes:
        _consent(verb, len(message_ids))
    tally = _moved(verb, move, message_ids)
    sys.stdout.write(f"{tally.done} {_PAST[verb]}\n")
    sys.stdout.flush()
    _say_living(tally.stayed)
    if tally.gone:
        sys.stderr.write(f"outbox: {tally.gone} were not dead letters any more: another command has moved them\n")
    if tally.interrupted:
        sys.stderr.write(
            f"outbox: interrupted after {tally.done} of {len(message_ids)}; the same command goes on with the rest\n"
        )
        raise typer.Exit(130)
    return tally.done


def _moved(verb: str, move: Move, message_ids: Sequence[UUID]) -> Tally:
    with progress(_PAST[verb], len(message_ids)) as advance:
        return ask_store(DeadLetters, lambda letters: in_batches(message_ids, partial(move, letters), advance))


def _preview(message_ids: Sequence[UUID]) -> None:
    """Show what a bulk command is about."""

    async def read(letters: DeadLetters) -> tuple[list[DeadLetterTotal], list[DeadLetter]]:
        totals = await letters.dead_letter_totals(Filter(message_ids=message_ids))
        return totals, await letters.read_dead_letters(message_ids[:_SAMPLE])

    totals, sample = ask_store(DeadLetters, read)
    show_totals(totals)
    show_dead_letters(sample)


def _consent(verb: str, count: int) -> None:
    cure = f"use --yes to {verb} without being asked, or --dry-run to look"
    consent(f"{verb.capitalize()} {count} dead letters?", cure=cure)


def _say_living(message_ids: Sequence[UUID]) -> None:
    if message_ids:
        sys.stderr.write(
            f"outbox: {len(message_ids)} left dead, a living message has their id or dedup_key: {named(message_ids)}\n"
        )


def _say_missing(asked: Sequence[UUID], there: set[UUID]) -> bool:
    """Name the ids that are no dead letters, and say whether there are any."""
    missing = [stranger for stranger in dict.fromkeys(asked) if stranger not in there]
    for stranger in missing:
        sys.stderr.write(f"outbox: {stranger} is no dead letter; outbox.message_life may show where it is\n")
    return bool(missing)
