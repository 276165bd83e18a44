"""The command `outbox status`: the outbox at a glance."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import orjson
import typer

from outbox import config
from outbox.asking import ask, with_store
from outbox.screens import show_status
from outbox.store import Store


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what waits, what failed, and who works."""
    report = ask(partial(with_store, config.load(), Store, Store.status))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_status(report)
