"""Takes an import back: first what has not been delivered, and if it is asked for, the workflows that were started.

What is taken back is forgotten in the same transaction, so that it may be imported again. Nothing is done to a workflow
that the import did not start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from outbox.loops.signals import Stop
from outbox.model.errors import OutboxError
from outbox_temporal.importing.journal import Books, Import, Moved, rollback_topic
from outbox_temporal.importing.report import ImportReport, RowFault
from outbox_temporal.importing.temporal_lookup import Lookup, Seen
from outbox_temporal.importing.verify import pages, workflows_of

Started = Literal["list", "cancel", "terminate"]
_UNSETTLED = ("waiting", "dead")
_WORDS = {
    "waiting": "messages cancelled",
    "dead": "dead letters deleted",
    "cancelled": "messages cancelled before",
    "discarded": "messages cancelled before",
}
"""What is counted of messages that were not delivered. A try of theirs may have got through all the same."""


class RowDecision(NamedTuple):
    """What is to become of a row. `stays` says why it stays; else it goes, and is counted as `what`."""

    what: str
    stays: str = ""
    ends: bool = False
    """Whether its workflow is to be ended through the outbox."""


def verdict(row: Moved, seen: Seen | None, started: Started) -> RowDecision:
    """What to do with a row, after Temporal has answered for its workflow unless `started` is `list`.

    A workflow that the row's message has started counts for more than the outbox's record of the message.
    """
    if row.fate == "in flight":
        return RowDecision("in flight", "a worker holds its message: run the rollback again")
    words = _WORDS.get(row.fate or "")
    if seen is not None and seen.ours:
        if seen.runs:
            return RowDecision(words or "workflows to be ended", ends=True)
        if seen.ended_by_hand:
            return RowDecision(words or "workflows ended before")
        return RowDecision("workflows left", f"it has {seen.status}: imported again, its work would be done twice")
    if words:
        return RowDecision(words)
    if row.fate == "duplicate" or seen is not None:
        return RowDecision("workflows of other origin left alone")
    if started == "list":
        return RowDecision(
            "workflows left", "it was delivered: look at it, or end it with --started cancel or terminate"
        )
    return RowDecision("workflows that are gone")


class Rollback:
    """One rollback. Without a lookup, Temporal is not asked and `started` is `list`."""

    def __init__(
        self,
        books: Books,
        found: Import,
        report: ImportReport,
        *,
        started: Started,
        lookup: Lookup | None,
        dry_run: bool,
    ) -> None:
        self._books = books
        self._import_id = found.import_id
        self._report = report
        self._started = started
        self._lookup = lookup
        self._dry_run = dry_run
        self._number: int | None = None
        """Of this rollback, once it has begun."""

    async def run(self, stop: Stop, advance: Callable[[int], object]) -> None:
        """Take back every row that can be. It may be broken off at any moment and run again."""
        if not self._dry_run:
            self._number = await self._books.begin_rollback(self._import_id)
        async for page in pages(self._books, self._import_id, stop):
            await self._page(page)
            advance(len(page))
        if self._number is not None and not stop.asked:
            await self._books.end_rollback(self._import_id, self._number)

    async def _page(self, page: Sequence[Moved]) -> None:
        seen: Mapping[str, Seen] = {}
        if self._lookup is not None:
            # Also of a message that is not delivered, or was taken back: an earlier try may have got through.
            seen = await workflows_of([row for row in page if row.tried or row.fate is None], self._lookup)
        verdicts = {row.identity: verdict(row, seen.get(row.identity), self._started) for row in page}
        go = [row for row in page if not verdicts[row.identity].stays]
        gone = {row.identity for row in go} if self._dry_run else await self._take_back(go, verdicts)
        counted = Counter(verdicts[identity].what for identity in gone)
        for what, number in counted.items():
            self._report.count(what, number)
        for row in page:
            self._count(row, verdicts[row.identity], gone=row.identity in gone)

    async def _take_back(self, rows: Sequence[Moved], verdicts: Mapping[str, RowDecision]) -> set[str]:
        if not rows:
            return set()
        settled = [row.fate not in _UNSETTLED for row in rows]
        async with self._books.transaction() as connection:
            if await self._books.lock_import(connection, self._import_id) != (True, self._number):
                raise OutboxError(
                    f"another rollback of {self._report.name!r} has begun: let it end, then run this again"
                )
            identities = [row.identity for row in rows]
            gone = await self._books.take_back(connection, self._import_id, identities, settled)
            ends = [self._end(row) for row in rows if row.identity in gone and verdicts[row.identity].ends]
            if ends:
                await self._books.enqueue(connection, ends)
        return gone

    def _end(self, row: Moved) -> dict[str, Any]:
        """The message that ends a row's workflow."""
        operation = f"{self._started}_workflow"
        target = {"operation": operation, "workflow_id": row.workflow_id, "reason": f"rollback of {self._report.name}"}
        if row.namespace:
            target["namespace"] = row.namespace
        return {"topic": rollback_topic(self._report.name), "target": target}

    def _count(self, row: Moved, judged: RowDecision, *, gone: bool) -> None:
        """Report what stays, and what may have a workflow although it goes."""
        if judged.stays:
            self._report.find(RowFault(row.identity, judged.what, judged.stays, row.workflow_id))
        elif not gone:
            text = "its message was settled or requeued just now: run the rollback again"
            self._report.find(RowFault(row.identity, "changed meanwhile", text, row.workflow_id))
        elif self._lookup is None and row.tried and row.fate in _WORDS:
            text = "its message had been tried before it was taken back: if that got through, a workflow runs"
            self._report.find(RowFault(row.identity, "tried before", text, row.workflow_id))
