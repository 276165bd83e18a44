"""The command `outbox reset`: makes the outbox as if it were new. For development and tests."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from outbox.cli.consent import consent_by_name
from outbox.cli.session import ask
from outbox.config import settings as config
from outbox.model.errors import ConfigurationError
from outbox.postgres.connect import place
from outbox.store.reset import COUNTED, ResetPreview, empty, look, refuse_living, renew

_COUNTED = {
    "messages": "messages that are not settled",
    "dead_letters": "dead letters",
    "history": "messages of history",
    "dedup_keys": "dedup keys of delivered messages",
    "imported": "rows noted as imported: the same import would move them again",
    "rules": "pauses, limits and switches",
}
_ALWAYS = {"messages", "dead_letters", "history"}
_NAMED = 10


def reset(
    yes: Annotated[
        bool, typer.Option("--yes-delete-everything", help="Do not ask for the database's name. Scripts need it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while workers run; they go on with nothing to do.")
    ] = False,
    drop_schema: Annotated[
        bool,
        typer.Option("--drop-schema", help="Drop the schema and make it again, in any state and of any version."),
    ] = False,
) -> None:
    """Delete everything, for development and tests.

    Settled or not, and there is no way back. The tables are emptied in one transaction. Captures, rights and
    publications stay, and so do workflows that were started in Temporal: a start under the same workflow id is a
    duplicate there.
    """
    settings = config.load()
    if drop_schema and settings.schema_name == "public":
        raise ConfigurationError("nothing was done: the schema is public, which holds more than the outbox")
    stock = ask(partial(look, settings.dsn, settings.schema_name, drop_schema=drop_schema))
    sys.stdout.write(f"{place(settings.dsn)}, database {stock.database}, schema {settings.schema_name}\n")
    _show(stock, drop_schema=drop_schema)
    sys.stdout.flush()
    if not force:
        refuse_living(stock.living)
        _refuse_unread(stock)
    if not yes:
        _consent(stock.database)
    ask(partial(renew if drop_schema else empty, settings.dsn, settings.schema_name, force=force))
    sys.stdout.write("the schema is new\n" if drop_schema else "the outbox is empty\n")


def _show(stock: ResetPreview, *, drop_schema: bool) -> None:
    """What will be lost, and what will stay."""
    if not stock.there:
        sys.stdout.write("  no such schema yet: nothing is lost\n")
        return
    counts = stock.counts
    if counts is None:
        sys.stdout.write("  what is in it cannot be read by this version\n")
    else:
        for name, what in _COUNTED.items():
            if counts[name] or name in _ALWAYS:
                shown = f"over {COUNTED:,}" if counts[name] > COUNTED else f"{counts[name]:,}"
                sys.stdout.write(f"  {shown:>9} {what}\n")
    if drop_schema:
        gone = stock.bystanders[:_NAMED] + ["…"] * (len(stock.bystanders) > _NAMED)
        for name in [*gone, "rights that were granted in it"]:
            sys.stdout.write(f"  goes too: {name}\n")
    elif counts and counts["captured"]:
        sys.stdout.write(f"  stays: captures of {', '.join(counts['captured'])}\n")


def _refuse_unread(stock: ResetPreview) -> None:
    if stock.there and stock.counts is None:
        raise ConfigurationError(
            "nothing was done: whether workers run cannot be read either; stop them, then use --force"
        )


def _consent(name: str) -> None:
    cure = "use --yes-delete-everything if that is what you want"
    consent_by_name("Type the name of the database to delete all this", name, cure=cure)
