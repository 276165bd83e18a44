"""Compares the rows that were moved with Temporal: each has a workflow, of its type, started by its message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from outbox.loops.signals import Stop
from outbox_temporal.importing.journal import Books, Import, Moved
from outbox_temporal.importing.report import ImportReport, RowFault
from outbox_temporal.importing.temporal_lookup import Lookup, Seen

PAGE = 500
_UNDELIVERED = {
    "waiting": "waiting in the outbox",
    "in flight": "waiting in the outbox",
    "dead": "dead letter",
    "cancelled": "cancelled",
    "discarded": "cancelled",
}


async def verify(
    books: Books, found: Import, lookup: Lookup, report: ImportReport, stop: Stop, advance: Callable[[int], object]
) -> None:
    """Look at every row. What is in order is counted by its workflow's status."""
    async for page in pages(books, found.import_id, stop):
        seen = await workflows_of([row for row in page if row.fate not in _UNDELIVERED], lookup)
        for row in page:
            finding = _undelivered(row) or judged(row, seen.get(row.identity))
            if isinstance(finding, RowFault):
                report.find(finding)
            else:
                report.count(finding)
        advance(len(page))


async def pages(books: Books, import_id: int, stop: Stop) -> AsyncIterator[list[Moved]]:
    """The rows that were moved, until the end or until a signal asks to stop."""
    after = ""
    while not stop.asked:
        page = await books.imported_rows(import_id, after, PAGE)
        if not page:
            return
        yield page
        after = page[-1].identity


async def workflows_of(rows: Sequence[Moved], lookup: Lookup) -> dict[str, Seen]:
    """Temporal's records of the rows' workflows, by the rows' identities."""
    found = await lookup.look(rows)
    return {row.identity: seen for row, seen in zip(rows, found, strict=True) if seen is not None}


def judged(row: Moved, seen: Seen | None) -> RowFault | str:
    """What is wrong with a delivered row's workflow, or its status when all is well."""
    if seen is None:
        text = "Temporal has none with this id: it never started, was deleted, or ended longer ago than the retention"
        return RowFault(row.identity, "no workflow", text, row.workflow_id)
    if not seen.ours:
        text = f"the workflow of this id was not started by message {row.message_id}"
        return RowFault(row.identity, "workflow of other origin", text, row.workflow_id)
    if seen.workflow != row.workflow:
        text = f"it is a {seen.workflow}, and should be a {row.workflow}"
        return RowFault(row.identity, "another workflow type", text, row.workflow_id)
    return seen.status


def _undelivered(row: Moved) -> RowFault | None:
    what = _UNDELIVERED.get(row.fate or "")
    if what is None:
        return None
    error = f": {row.error}" if row.error else ""
    return RowFault(row.identity, what, f"message {row.message_id}{error}", row.workflow_id)
