"""Asks whether a database may be emptied, before the first statement that changes anything."""

from __future__ import annotations

from functools import partial

from outbox.cli.consent import consent
from outbox.cli.session import ask
from outbox.model.errors import ConfigurationError
from outbox.postgres.connect import place
from outbox.postgres.errors import translated_errors
from outbox.store.sql import query
from outbox_bench.load.in_process import connected

_MANY = 1_000_000
_UNSETTLED = "select count(*) from (select from outbox.message limit $1) unsettled"
_SHOWN = 3


def ask_for(dsn: str, *, yes: bool) -> None:
    """Raise ConfigurationError unless the outbox there may be emptied: nothing waits in it, or the user says so."""
    unsettled, workers = ask(partial(_look, dsn))
    if workers:
        raise ConfigurationError(
            f"a worker runs on {place(dsn)} ({', '.join(workers)}) and would take the benchmark's messages: stop it, "
            "or wait a minute if it was killed"
        )
    if not unsettled or yes:
        return
    count = f"{unsettled:,} or more" if unsettled == _MANY else f"{unsettled:,}"
    what = f"{count} unsettled messages are in the outbox of {place(dsn)}, and would be lost"
    consent(f"{what}. Empty it?", cure=f"{what}: name another database with --dsn, or use --yes")


async def _look(dsn: str) -> tuple[int, list[str]]:
    """How many unsettled messages there are, and which workers live. An outbox that is not there is empty."""
    with translated_errors("connect"):
        async with connected(dsn) as connection:
            if await connection.fetchval("select to_regclass('outbox.message')") is None:
                return 0, []
            workers = await connection.fetch(query("reset/living_workers"))
            return await connection.fetchval(_UNSETTLED, _MANY), [row["name"] for row in workers[:_SHOWN]]
