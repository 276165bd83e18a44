"""What an audit compares: messages as the outbox keeps them, runs as Temporal keeps them. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

STARTS = ("start_workflow", "signal_with_start_workflow")
"""The operations that start workflows. Temporal keeps no trace of the others that could be compared."""
DELIVERED = ("delivered", "duplicate")


class Entry(NamedTuple):
    """A message, and what became of it. Field order is that of `audit/messages.sql` and `audit/lookup.sql`."""

    message_id: UUID
    status: str
    """`delivered`, `duplicate`, `discarded`, `cancelled`, as in the history; `dead`; `unsettled`."""
    at: datetime
    """When it was settled or died; of the unsettled, when it was claimed last."""
    tried_at: datetime | None
    """When it was claimed last. What Temporal said of a delivery, it said after this."""
    topic: str
    operation: str | None
    """None if only its route says it; the same for the following."""
    workflow: str | None
    workflow_id: str | None
    run_id: str | None
    namespace: str | None
    """Once it is judged: where its workflow should be."""
    task_queue: str | None

    @property
    def delivered(self) -> bool:
        """Whether the history says that its workflow exists."""
        return self.status in DELIVERED

    @property
    def may_start(self) -> bool:
        """Whether it starts a workflow, as far as is known: of the operations only starts leave a run id."""
        if self.operation is None:
            return self.run_id is not None or not self.delivered
        return self.operation in STARTS


class Run(NamedTuple):
    """One run of a workflow. Those that continue one another, or retry or reset one, are a chain."""

    namespace: str
    workflow_id: str
    run_id: str
    workflow: str
    task_queue: str
    message_id: UUID | None
    """The message that its memo names: the one that started its chain. None: no outbox started it."""
    started_at: datetime
    continued: bool = False
    """Whether it continued as new, so that another run of its chain follows."""
    child: bool = False
    first_run_id: str | None = None
    """The first run of its chain. Temporal gives it only in the description of a single run."""

    @property
    def is_later(self) -> bool:
        """Whether it is known not to be the first of its chain."""
        return self.first_run_id not in (None, self.run_id)


@dataclass(frozen=True, slots=True)
class Scope:
    """What an audit looks at. Every time is the database's."""

    since: datetime
    until: datetime
    """Nothing younger is looked at: it may be on its way yet."""
    now: datetime
    horizon: datetime
    """Until when the history reaches back."""
    retention_s: Mapping[str, float]
    """For each namespace that is looked at, how long it keeps what has ended."""
    workflows: tuple[str, ...] = ()
    """Look only for workflows of these types, or with ids that begin with one of the prefixes; both empty: for all."""
    prefixes: tuple[str, ...] = ()

    @property
    def narrowed(self) -> bool:
        """Whether it looks only for workflows that only this outbox should start."""
        return bool(self.workflows or self.prefixes)

    def covers(self, entry: Entry) -> bool:
        """Whether the message itself is in the scope, not only its workflow."""
        return entry.tried_at is not None and self.since <= entry.at < self.until and entry.workflow_id is not None
