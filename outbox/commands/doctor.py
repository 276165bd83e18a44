"""The command `outbox doctor`: what is wrong, and its cure."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import orjson
import typer

from outbox.asking import ask
from outbox.doctor import examine, is_safe
from outbox.effective import survey
from outbox.screens import show_findings


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Examine all that a worker needs, and print the cure of what is wrong; exit 1 unless it is safe to start."""
    found = survey()
    groups = ask(partial(examine, found.reading, found.sink, found.faults, found.sink_faults))
    safe = is_safe(groups)
    if as_json:
        report = {"safe": safe, "findings": [finding for group in groups for finding in group.findings]}
        sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        show_findings(groups)
    if not safe:
        raise typer.Exit(1)
