"""The kinds of differences, what each means and what to do; and the tally of an audit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

_REMEMBERED = 100_000
"""How many reported differences it remembers: one may appear on several pages."""


class Kind(StrEnum):
    """How history and Temporal can differ. The last two are no faults."""

    MISSING = "missing"
    ELSEWHERE = "elsewhere"
    REPLACED = "replaced"
    WRONG_TYPE = "wrong-type"
    WRONG_QUEUE = "wrong-queue"
    TWICE = "twice"
    TAKEN = "taken"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNSETTLED = "unsettled"
    GHOST = "ghost"
    ORPHAN = "orphan"
    STRANGER = "stranger"
    FORGOTTEN = "forgotten"
    SHARED = "shared"

    @property
    def is_fault(self) -> bool:
        """Whether a person should look at it."""
        return self not in (Kind.FORGOTTEN, Kind.SHARED)

    @property
    def meaning(self) -> str:
        """What such differences have in common, in a line."""
        return _ABOUT[self][0]

    @property
    def cure(self) -> str:
        """What to do about one."""
        return _ABOUT[self][1]


_ABOUT: dict[Kind, tuple[str, str]] = {
    Kind.MISSING: (
        "delivered, and Temporal has no such workflow, though it should keep it yet",
        "it was deleted, or Temporal lost it or never had it: if its work is not done, enqueue it again",
    ),
    Kind.ELSEWHERE: (
        "delivered, and the workflow is in another namespace",
        "give all workers of this outbox, and this command, the same TEMPORAL_NAMESPACE",
    ),
    Kind.REPLACED: (
        "the run in the history is gone, and another has its workflow id",
        "that run was deleted and another started, or the history was changed: check which work the present run does",
    ),
    Kind.WRONG_TYPE: (
        "the workflow is of another type than the message or its route says",
        "the message's work is not done: give workflows of different types different ids, and enqueue it again",
    ),
    Kind.WRONG_QUEUE: (
        "the workflow is on another task queue than the message or its route says",
        "see that workers of the right kind serve that queue; if a route has changed since, nothing is wrong",
    ),
    Kind.TWICE: (
        "more than one chain of runs carries the message's id",
        "the work may be done twice: end and undo one of them; see who started it, and whether reuse was allowed",
    ),
    Kind.TAKEN: (
        "delivered as a duplicate of a workflow that no message has started, or only a lost one",
        "the message's payload has reached no workflow: enqueue it again under an id of its own, if it matters",
    ),
    Kind.DEAD: (
        "a dead letter, but its workflow exists",
        "its work is under way or done: `outbox dead discard` it",
    ),
    Kind.CANCELLED: (
        "cancelled or discarded, and its workflow exists",
        "it had got through before: if its work is unwanted, enqueue outbox.cancel_workflow",
    ),
    Kind.UNSETTLED: (
        "not settled, and its workflow exists",
        "let a worker run: its next delivery is recognised; if that does not help, see `outbox status`",
    ),
    Kind.GHOST: (
        "a workflow without its message in this database",
        (
            "if a crash, failover or restore lost it, undo its work or --terminate-ghosts; or "
            "another outbox is at work (then use --type), or it was started by hand"
        ),
    ),
    Kind.ORPHAN: (
        "a workflow with a message's id, and that message starts none",
        "see who started it: it was started by hand, with the memo of another message",
    ),
    Kind.STRANGER: (
        "a workflow of the given types or prefixes that no message has started",
        "see in Temporal's UI who started it; have that one enqueue a message instead",
    ),
    Kind.FORGOTTEN: (
        "delivered longer ago than the namespace's retention: Temporal may have forgotten it",
        "nothing; audit within the retention",
    ),
    Kind.SHARED: (
        "delivered to a workflow that another start had made, as the message allows",
        "nothing, if both mean the same work",
    ),
}


class Difference(NamedTuple):
    """One difference. `what` explains this very one."""

    kind: Kind
    message_id: UUID | None
    namespace: str
    workflow_id: str
    run_id: str | None
    what: str
    starter: UUID | None = None
    """The other message that started the workflow, if the history should know it."""


class AuditReport:
    """Counts what is found; of each kind it keeps the first `limit`, or hands them to `show` as they come.

    So its memory is bounded, however much is wrong.
    """

    def __init__(self, limit: int, *, show: Callable[[Difference], object] | None = None) -> None:
        self.counts: Counter[Kind] = Counter()
        self.messages = 0
        """Messages that were compared."""
        self.runs = 0
        """Runs that were compared."""
        self.troubles: list[str] = []
        """What could not be looked at, and why: a line each."""
        self.interrupted = False
        self._limit, self._show = limit, show
        self._kept: defaultdict[Kind, list[Difference]] = defaultdict(list)
        self._shown: set[int] = set()

    def add(self, finding: Difference) -> None:
        """Take a difference, unless it was reported already."""
        fingerprint = hash((finding.kind, finding.message_id, finding.namespace, finding.workflow_id))
        if fingerprint in self._shown:
            return
        if len(self._shown) >= _REMEMBERED:
            self._shown.clear()
        self._shown.add(fingerprint)
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= self._limit:
            (self._show or self._kept[finding.kind].append)(finding)

    def shown(self, kind: Kind) -> list[Difference]:
        """The first findings of a kind."""
        return self._kept[kind]

    @property
    def faults(self) -> int:
        """How many findings are faults."""
        return sum(count for kind, count in self.counts.items() if kind.is_fault)
