"""Moves rows: reads a batch, makes messages of it, and enqueues them together with the note that they were moved.

A dry run takes the same way and asks PostgreSQL about each message in place of enqueueing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from outbox.loops.signals import Stop
from outbox.model.errors import ConfigurationError, DatabaseRefused, OutboxError
from outbox_temporal.importing.journal import Books, Import, Known, is_for_values, rollback_topic
from outbox_temporal.importing.mapping import ImportMapping
from outbox_temporal.importing.report import ImportReport, RowFault
from outbox_temporal.importing.rows import Planned, RowRefusal, planned
from outbox_temporal.importing.source import RowSource
from outbox_temporal.sink.allow_list import Allowed

SAMPLES = 3
_MOST_BYTES = 16 * 1024 * 1024
"""Of payloads in one statement, roughly."""

Workflow = tuple[str, str]
"""A workflow id and its namespace: at most one row's."""


class RowMover:
    """Moves the rows of one import, or with `dry_run` finds out what would become of them."""

    def __init__(
        self, mapping: ImportMapping, books: Books, report: ImportReport, allowed: Allowed, *, dry_run: bool
    ) -> None:
        self._mapping = mapping
        self._books = books
        self._report = report
        self._allowed = allowed
        self._dry_run = dry_run
        self._moves = "would be moved" if dry_run else "moved"
        report.counts = dict.fromkeys((self._moves, "already there", "refused"), 0)
        self._import: Import | None = None
        self._seen: dict[Workflow, str] = {}
        """Of a dry run: what the books would know by now."""

    async def run(self, source: RowSource, batch: int, stop: Stop, advance: Callable[[int], object]) -> None:
        """Take every row of the source. Between two batches it checks whether it must stop."""
        await self._open()
        async for rows in source.batches(batch):
            if stop.asked:
                return
            plans = [planned(self._mapping, row) for row in rows]
            self._warn(plans)
            for part in _parts(plans):
                await (self._judge(part) if self._dry_run else self._move(part))
            advance(len(rows))

    async def _open(self) -> None:
        """Begin or continue. Raises ConfigurationError where that would move rows a second time."""
        mapping, identity = self._mapping, self._mapping.source.identity
        # Read before the ends are looked for: a rollback that begins later than this is found out by its number.
        found = await self._books.read_import(mapping.name)
        if not self._dry_run:
            await self._require_no_ends()
            if found is None:
                found = await self._books.open_import(mapping.name, identity)
                await self._require_no_ends()  # others may have begun it in between, and rolled it back
        self._import = found
        if found is not None and found.identity != identity:
            raise ConfigurationError(
                f"{mapping.at('source', 'identity')}: the import {mapping.name!r} has begun with the identity "
                f"{found.identity}: keep it, roll the import back, or give this one another name"
            )
        if found is not None and found.rolling_back:
            raise self._rolled_back()

    async def _require_no_ends(self) -> None:
        name = self._mapping.name
        if pending := await self._books.pending_ends(rollback_topic(name)):
            raise OutboxError(
                f"{pending} workflows of {name!r} are still to be ended by the last rollback, which would end "
                "those started now in their place: let a worker deliver its messages first"
            )

    def _warn(self, plans: Sequence[Planned | RowRefusal]) -> None:
        """Warn of what a worker with these settings would not carry out; another worker may be allowed to."""
        for plan in plans:
            if isinstance(plan, Planned) and (fault := self._allowed.fault(plan.wish)):
                self._report.warn(f"{fault}; with these settings its messages become dead letters")

    async def _move(self, plans: Sequence[Planned | RowRefusal]) -> None:
        """Move a part of a batch. Where PostgreSQL refuses it, find out which rows are to blame, and move the rest."""
        try:
            await self._moved(plans)
        except DatabaseRefused as error:
            if not is_for_values(error):
                raise
            await self._moved(await self._with_faults(plans))  # refused again if no message is to blame

    async def _moved(self, plans: Sequence[Planned | RowRefusal]) -> None:
        assert self._import is not None
        import_id = self._import.import_id
        async with self._books.transaction() as connection:
            # A rollback since this run began, also one that has ended, may have left ends that are yet to be delivered.
            state = await self._books.lock_import(connection, import_id)
            if state is not None and state[0]:
                raise self._rolled_back()
            if state != (False, self._import.rollbacks):
                raise OutboxError(f"the import {self._mapping.name!r} was rolled back during this run: import again")
            known = await self._books.known_rows(import_id, *_asked(plans), connection)
            fresh, refused, already = sorted_out(plans, known, {})
            if fresh:
                await self._books.note_rows(connection, import_id, fresh)
        self._count(len(fresh), refused, already)

    async def _judge(self, plans: Sequence[Planned | RowRefusal]) -> None:
        """What would become of a part of a batch."""
        import_id = None if self._import is None else self._import.import_id
        judged = await self._with_faults(plans)
        known = await self._books.known_rows(import_id, *_asked(judged))
        fresh, refused, already = sorted_out(judged, known, self._seen)
        for row in fresh[: SAMPLES - len(self._report.samples)]:
            self._report.samples.append({"identity": row.identity, "message": row.message})
        self._count(len(fresh), refused, already)

    async def _with_faults(self, plans: Sequence[Planned | RowRefusal]) -> list[Planned | RowRefusal]:
        """The plans. Those with a message that PostgreSQL would refuse become refusals."""
        places = [place for place, plan in enumerate(plans) if isinstance(plan, Planned)]
        messages = [plan.message for plan in plans if isinstance(plan, Planned)]
        faults = await self._books.message_faults(messages) if messages else {}
        judged = list(plans)
        for number, fault in faults.items():
            judged[places[number]] = RowRefusal(plans[places[number]].identity, fault)
        return judged

    def _count(self, fresh: int, refused: Sequence[RowRefusal], already: int) -> None:
        self._report.count(self._moves, fresh)
        self._report.count("already there", already)
        for refusal in refused:
            self._report.find(RowFault(refusal.identity, "refused", refusal.reason))

    def _rolled_back(self) -> OutboxError:
        return OutboxError(
            f"the import {self._mapping.name!r} is being rolled back, or that broke off: "
            f"end it with `outbox import {self._mapping.path} --rollback`, then import again"
        )


def sorted_out(
    plans: Sequence[Planned | RowRefusal], known: Sequence[Known], seen: dict[Workflow, str]
) -> tuple[list[Planned], list[RowRefusal], int]:
    """Separate rows to move from rows that are refused, and count those that were moved before.

    `seen` has the workflows of rows that were to be moved, and grows.
    """
    there = {row.identity for row in known if row.same_row}
    taken = {(row.workflow_id, row.namespace): row for row in known}
    fresh: list[Planned] = []
    refused: list[RowRefusal] = []
    already = 0
    for plan in plans:
        if plan.identity in there:
            already += 1
        elif isinstance(plan, RowRefusal):
            refused.append(plan)
        elif (other := taken.get(workflow := (plan.workflow_id, plan.namespace))) is not None:
            owner = f"row {other.identity!r} of the import {other.name!r}"
            refused.append(RowRefusal(plan.identity, f"its workflow id {plan.workflow_id!r} is that of {owner}"))
        elif (first := seen.setdefault(workflow, plan.identity)) != plan.identity:
            refused.append(RowRefusal(plan.identity, f"its workflow id {plan.workflow_id!r} is that of row {first!r}"))
        else:
            fresh.append(plan)
    return fresh, refused, already


def _asked(plans: Sequence[Planned | RowRefusal]) -> tuple[list[str], list[Workflow]]:
    """The rows and workflows to look for in the books."""
    workflows = [(plan.workflow_id, plan.namespace) for plan in plans if isinstance(plan, Planned)]
    return [plan.identity for plan in plans], workflows


def _parts(plans: Sequence[Planned | RowRefusal]) -> Iterator[list[Planned | RowRefusal]]:
    """A batch in parts that are not too large for one statement."""
    part: list[Planned | RowRefusal] = []
    size = 0
    for plan in plans:
        part.append(plan)
        size += plan.payload_bytes if isinstance(plan, Planned) else 0
        if size > _MOST_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
