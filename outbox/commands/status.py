"""The command `outbox status`: the outbox at a glance."""

from __future__ import annotations

import sys
from functools import partial
from time import monotonic
from typing import Annotated, Any

import anyio
import orjson
import typer

from outbox import config
from outbox.asking import ask
from outbox.config import Settings
from outbox.database import open_pool, place
from outbox.errors import DatabaseUnavailable
from outbox.migrate import require_current
from outbox.screens import show_status
from outbox.store import Store

_WITHIN_S = 2.0
"""Whatever happens: who asks has a fault to find."""
_SCHEMA_WITHIN_S, _LEAST_S, _MARGIN_S = 0.4, 0.3, 0.4
"""The margin is for finding out who blocks what was left out."""


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what waits, what failed, and who works, within two seconds."""
    report = ask(partial(_report, config.load()))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_status(report)


async def _report(settings: Settings) -> dict[str, Any]:
    """The status, without what cannot be had in time. Raises DatabaseUnavailable where nothing can."""
    end_s = monotonic() + _WITHIN_S
    try:
        with anyio.fail_after(_WITHIN_S):
            async with open_pool(
                settings.dsn, size=1, application_name="outbox cli", statement_timeout_s=_WITHIN_S, for_people=True
            ) as pool:
                missing = {}
                try:
                    async with pool.acquire(timeout_s=_SCHEMA_WITHIN_S) as connection:
                        await require_current(connection, settings.schema_name)
                except (TimeoutError, DatabaseUnavailable):
                    missing["schema version"] = "no answer in time"
                left_s = max(_LEAST_S, end_s - monotonic() - _MARGIN_S)
                return await Store(pool, settings.schema_name).status(left_s, missing=missing)
    except TimeoutError as error:
        cure = "is it running? `outbox doctor` examines the way to it"
        raise DatabaseUnavailable(
            f"PostgreSQL at {place(settings.dsn)} does not answer within {_WITHIN_S:g} s: {cure}"
        ) from error
