"""Compares one message with what Temporal shows of its workflow id. Pure: it says what else it would have to know.

The lists of Temporal show runs, not which of them are a chain. Of one workflow id at most one run is open at a time, so
its chains follow one another: if the message's first and last run have the same beginning, all between them have. And
a run that continued as new has its successor, so if only one run has none, Temporal need not be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from outbox.cli.format import moment, span
from outbox_temporal.audit.findings import Difference, Kind
from outbox_temporal.audit.records import Entry, Run, Scope


@dataclass(slots=True)
class Sight:
    """What Temporal shows of one message's workflow id, folded: of a thousand runs it keeps four."""

    entry: Entry
    recorded: Run | None = None
    """The run that the history names."""
    first: Run | None = None
    """The first run that carries the message's id."""
    last: Run | None = None
    other: Run | None = None
    """The latest run that does not."""
    unfollowed: int = 0
    """Runs with the message's id that did not continue as new: at least as many as there are chains, or one less."""
    answers: dict[str, Run | None] = field(default_factory=dict)
    """What Temporal said of single runs, by run id; empty: of the current one."""

    def see(self, run: Run) -> None:
        """Take a run of the workflow id into account that Temporal lists."""
        if run.run_id == self.entry.run_id:
            self.recorded = run
        if run.message_id != self.entry.message_id:
            if self.other is None or run.started_at > self.other.started_at:
                self.other = run
            return
        self.unfollowed += not run.continued
        if self.first is None or run.started_at < self.first.started_at:
            self.first = run
        if self.last is None or run.started_at >= self.last.started_at:
            self.last = run

    def learn(self, asked: str, run: Run | None) -> None:
        """Take the answer to a question into account. The lists lag behind: it may show the recorded run first."""
        self.answers[asked] = run
        if run is not None and self.recorded is None and asked == (self.entry.run_id or ""):
            self.see(run)
            self.recorded = run

    def chain(self, run: Run) -> str | None:
        """The first run of a run's chain, if Temporal said it."""
        answer = self.answers.get(run.run_id)
        return None if answer is None else answer.first_run_id


def questions(sight: Sight) -> list[str]:
    """The runs that Temporal has to be asked for next, before the message can be judged; empty at the end."""
    return list(dict.fromkeys(run_id for run_id in _doubtful(sight) if run_id not in sight.answers))


def findings(sight: Sight, scope: Scope) -> Iterator[Difference]:
    """How the message differs from Temporal, once every question is answered."""
    entry, first, last = sight.entry, sight.first, sight.last
    if entry.delivered:
        yield from _of_delivered(sight, scope)
    elif first is not None and first.started_at < scope.until:
        kind = {"dead": Kind.DEAD, "unsettled": Kind.UNSETTLED}.get(entry.status, Kind.CANCELLED)
        yield _finding(kind, entry, first, f"the message is {entry.status}, its workflow began {_began(first)}")
    if sight.unfollowed > 1 and first is not None and last is not None:
        one, two = sight.chain(first), sight.chain(last)
        if one and two and one != two:
            yield _finding(Kind.TWICE, entry, last, f"chains that began with the runs {one} and {two}")


def found_elsewhere(entry: Entry, run: Run) -> Difference:
    """For a message with its workflow in another place than expected: this place."""
    return _finding(Kind.ELSEWHERE, entry, run, f"found there, and not in {entry.namespace}")


def unaccounted(run: Run, entries: Sequence[Entry], scope: Scope) -> Difference | list[Entry]:
    """Of a run with a message's id, and the messages of that id: what seems wrong, or which of them to judge."""
    starting = [entry for entry in entries if entry.may_start]
    if not starting:
        kind = Kind.ORPHAN if entries else Kind.GHOST
        what = f"message {run.message_id} " + (f"asks for {entries[0].operation}" if entries else "is nowhere")
        return Difference(kind, run.message_id, run.namespace, run.workflow_id, run.run_id, what)
    known = [entry for entry in starting if entry.workflow_id in (None, run.workflow_id)]
    here = [entry for entry in known if entry.namespace == run.namespace or not entry.delivered]
    if not here:
        entry = (known or starting)[0]
        own = f"{entry.workflow_id} in {entry.namespace}, run {entry.run_id}"
        return _finding(Kind.TWICE, entry._replace(workflow_id=run.workflow_id), run, f"the message's own is {own}")
    further = [entry for entry in here if entry.namespace != run.namespace or not scope.covers(entry)]
    return [entry._replace(workflow_id=run.workflow_id, namespace=run.namespace) for entry in further]


def stranger(run: Run) -> Difference:
    """Of a run that only the outbox should have started."""
    what = f"a {run.workflow} on {run.task_queue}, begun {_began(run)}"
    return Difference(Kind.STRANGER, None, run.namespace, run.workflow_id, run.run_id, what)


def enqueued_at(message_id: UUID) -> datetime | None:
    """When a message was enqueued, if its id holds it: ids from the database do (UUID version 7)."""
    return datetime.fromtimestamp((message_id.int >> 80) / 1000, UTC) if message_id.version == 7 else None


def _doubtful(sight: Sight) -> Iterator[str]:
    entry, recorded, first, last = sight.entry, sight.recorded, sight.first, sight.last
    if entry.delivered and recorded is None:
        if entry.run_id is not None or (last or sight.other) is None:
            yield entry.run_id or ""
        if entry.run_id is not None and last is not None:
            yield last.run_id
    elif entry.delivered and recorded is not None and any(_deviations(entry, recorded)):
        yield recorded.run_id
    if sight.unfollowed > 1 and first is not None and last is not None:
        yield first.run_id
        yield last.run_id


def _of_delivered(sight: Sight, scope: Scope) -> Iterator[Difference]:
    entry, recorded = sight.entry, sight.recorded
    if recorded is None and (entry.run_id is None or entry.status == "duplicate"):
        recorded = sight.first or sight.other
    if recorded is None:
        yield from _of_absent(sight, scope)
        return
    if recorded.message_id != entry.message_id and entry.operation != "signal_with_start_workflow":
        yield _of_foreign(entry, recorded, scope)
    if sight.chain(recorded) in (None, recorded.run_id):  # what continues as new may change its type
        for kind, what in _deviations(entry, recorded):
            yield _finding(kind, entry, recorded, what)


def _of_absent(sight: Sight, scope: Scope) -> Iterator[Difference]:
    """For a delivery to a run that Temporal does not have."""
    entry, last, other = sight.entry, sight.last, sight.other
    tried_at, retention_s = entry.tried_at or entry.at, scope.retention_s[entry.namespace or ""]
    age_s = (scope.now - tried_at).total_seconds()
    if last is not None:
        if age_s <= retention_s and sight.chain(last) not in (None, entry.run_id):
            yield _finding(Kind.REPLACED, entry, last, f"history has run {entry.run_id}, this one has the message's id")
    elif age_s > retention_s or entry.status == "duplicate":
        yield _finding(Kind.FORGOTTEN, entry, None, f"delivered {span(age_s)} ago")
    elif other is not None:
        origin = "without a message" if other.message_id is None else f"by message {other.message_id}"
        yield _finding(Kind.REPLACED, entry, other, f"history has run {entry.run_id}, this one was started {origin}")
    else:
        what = f"delivered {span(age_s)} ago, kept for {span(retention_s)} after its end"
        yield _finding(Kind.MISSING, entry, None, what)


def of_ghosts(finding: Difference) -> Difference:
    """For a delivery to a workflow without a message of its own: this message's payload has reached nothing."""
    what = f"started by message {finding.starter}, which is nowhere: a crash, failover or restore lost it"
    return finding._replace(kind=Kind.TAKEN, what=what)


def _of_foreign(entry: Entry, recorded: Run, scope: Scope) -> Difference:
    """Of a delivery to a workflow that this message has not started."""
    if recorded.message_id is not None:
        begun_at = enqueued_at(recorded.message_id) or recorded.started_at
        starter = recorded.message_id if begun_at >= scope.horizon else None
        found = _finding(Kind.SHARED, entry, recorded, f"started by message {recorded.message_id}")
        return found._replace(starter=starter)
    if entry.status == "duplicate":
        return _finding(Kind.TAKEN, entry, recorded, f"started {_began(recorded)} without a message")
    return _finding(Kind.SHARED, entry, recorded, "started without a message, and joined by use_existing")


def _deviations(entry: Entry, run: Run) -> Iterator[tuple[Kind, str]]:
    if entry.workflow not in (None, run.workflow):
        yield Kind.WRONG_TYPE, f"it is a {run.workflow}, and should be a {entry.workflow}"
    if entry.task_queue not in (None, run.task_queue):
        yield Kind.WRONG_QUEUE, f"it is on {run.task_queue}, and should be on {entry.task_queue}"


def _finding(kind: Kind, entry: Entry, run: Run | None, what: str) -> Difference:
    """A finding about a message; `run` is the one that was found."""
    namespace = entry.namespace or "" if run is None else run.namespace
    run_id = entry.run_id if run is None else run.run_id
    return Difference(kind, entry.message_id, namespace, entry.workflow_id or "", run_id, what)


def _began(run: Run) -> str:
    return moment(run.started_at)
