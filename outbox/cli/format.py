"""What the commands show to people: plain lines and rich tables on standard output."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from rich.cells import cell_len

from outbox.store.migrations import remark

NEVER_CUT = 10_000
"""Width in columns of output that may be piped."""

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outbox.store.migrations import Step


def show_steps(steps: list[Step], schema: str) -> bool:
    """Migrations, a line each, and what it means if some are newer. Return whether this version can work with them."""
    for step in steps:
        sys.stdout.write(f"{step.state:8} {step.label}\n")
    if newer := remark(steps, schema):
        sys.stdout.write(f"{newer}\n")
    return {step.state for step in steps} <= {"applied", "newer"}


def show_migrated(steps: list[Step], schema: str) -> None:
    """What a migration has done: the steps that it applied, or that it left a newer schema alone."""
    if newer := remark(steps, schema):
        sys.stdout.write(f"{newer}: nothing to do\n")
        return
    for step in steps:
        sys.stdout.write(f"applied  {step.label}\n")
    sys.stdout.write(f"schema {schema} is up to date\n")


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table without end, line by line, nothing cut. A table of rich takes two milliseconds for each row."""
    widths = [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        yield f"{'  '.join(cells).rstrip()}\n"


def span(seconds: float) -> str:
    """A duration in the largest unit of which it has two, and seconds below."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def seconds(value: float | None) -> str:
    """A measured duration; a dash for None."""
    if value is None:
        return "–"
    if value >= 120:
        return span(value)
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"


_NAMED = 3


def named(message_ids: Sequence[UUID]) -> str:
    """The first few ids."""
    return ", ".join(map(str, message_ids[:_NAMED])) + (", …" if len(message_ids) > _NAMED else "")


def moment(at: datetime) -> str:
    """A time in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(at: datetime) -> str:
    """How long ago, by this machine's clock."""
    return span((datetime.now(UTC) - at).total_seconds())
