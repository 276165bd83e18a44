"""Reads both sides in pages, each looked up on the other side, so that memory does not grow with what there is.

First the messages, by their ids: one list asks Temporal for the workflows of a few hundred of them. Then the runs that
started within the time, as Temporal pages them: those with a message's id are looked up in the outbox. Neither clock
is compared with the other but for who is too young, and nothing need be in the same order on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from uuid import UUID

import anyio

from outbox_temporal.audit.compare import (
    Sight,
    enqueued_at,
    findings,
    found_elsewhere,
    of_ghosts,
    questions,
    stranger,
    unaccounted,
)
from outbox_temporal.audit.executions import Executions, listable, started_between, with_ids
from outbox_temporal.audit.findings import AuditReport, Difference, Kind
from outbox_temporal.audit.history import AuditHistory
from outbox_temporal.audit.records import Entry, Run, Scope
from outbox_temporal.target.table import Routes

_PAGE = 1000
_TOGETHER = 250
"""Workflow ids in one query: it stays far below any limit on its length."""
_BEGINNING = UUID(int=0)

Advance = Callable[[int], object]


class Audit:
    """Compares both sides and adds what it finds to a report. May raise DatabaseUnavailable and TemporalRefused."""

    def __init__(
        self,
        ledger: AuditHistory,
        executions: Executions,
        scope: Scope,
        report: AuditReport,
        complete: Callable[[Entry], Entry],
    ) -> None:
        self._ledger, self._executions = ledger, executions
        self._scope, self._report = scope, report
        self._complete = complete
        self.ghosts: dict[tuple[str, str], Run] = {}
        """A run of each chain without its message in the database."""
        self.stopping = False
        """Set it, and the audit ends with the page that it is at."""

    async def home_fault(self) -> str | None:
        """Why the database is a copy, to which everything that the original started since is a ghost; None if not."""
        return await self._ledger.home_fault()

    async def messages(self, advance: Advance) -> None:
        """Compare each message of the time with Temporal."""
        scope, after = self._scope, _BEGINNING
        while not self.stopping:
            page = await self._ledger.audit_messages(scope.since, scope.until, after, _PAGE)
            if not page:
                return
            entries = [entry for entry in map(self._complete, page) if scope.covers(entry) and entry.may_start]
            await self._judge(entries)
            self._report.messages += len(entries)
            advance(len(page))
            after = page[-1].message_id

    async def runs(self, namespace: str, advance: Advance) -> None:
        """Compare each run that started within the time with the outbox."""
        scope = self._scope
        query = started_between(scope.since, scope.until, scope.workflows, scope.prefixes)
        async for page in self._executions.pages(namespace, query):
            await self._account([run for run in page if run.message_id is not None])
            if scope.narrowed:
                for run in page:
                    if run.message_id is None and not run.child:
                        self._report.add(stranger(run))
            self._report.runs += len(page)
            advance(len(page))
            if self.stopping:
                return

    async def _judge(self, entries: Iterable[Entry]) -> None:
        """Judge messages with workflow ids, a few hundred of a namespace together."""
        places: defaultdict[str, defaultdict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in entries:
            namespace = entry.namespace or ""
            if entry.workflow_id is not None and namespace in self._scope.retention_s:
                places[namespace][entry.workflow_id].append(entry)
        async with anyio.create_task_group() as tasks:
            for namespace, workflows in places.items():
                for some in _slices(workflows):
                    tasks.start_soon(self._judge_some, namespace, some)

    async def _judge_some(self, namespace: str, workflows: Mapping[str, list[Entry]]) -> None:
        sights = {workflow_id: [Sight(entry) for entry in entries] for workflow_id, entries in workflows.items()}
        async for page in self._seen(namespace, list(sights)):
            for run in page:
                for sight in sights.get(run.workflow_id, ()):
                    sight.see(run)
        found: list[list[Difference]] = [[] for _ in sights]
        async with anyio.create_task_group() as tasks:  # where many are missing, each of them is a question of its own
            for its_sights, its_findings in zip(sights.values(), found, strict=True):
                tasks.start_soon(self._judge_one, namespace, its_sights, its_findings)
        findings = list(chain.from_iterable(found))
        starters = {finding.starter for finding in findings if finding.starter is not None}
        known = {entry.message_id for entry in await self._ledger.audit_lookup(list(starters))} if starters else set()
        for finding in findings:
            self._report.add(of_ghosts(finding) if finding.starter in starters - known else finding)

    async def _judge_one(self, namespace: str, its_sights: Sequence[Sight], found: list[Difference]) -> None:
        """Judge the messages of one workflow id, and put down what is found in their order."""
        for sight in its_sights:
            while asked := questions(sight):
                for run_id in asked:
                    sight.learn(run_id, await self._executions.look(namespace, sight.entry.workflow_id or "", run_id))
            for finding in findings(sight, self._scope):
                found.append(await self._sought(sight.entry, finding))  # noqa: PERF401 - each is awaited

    async def _seen(self, namespace: str, workflow_ids: Sequence[str]) -> AsyncIterator[list[Run]]:
        """The runs of workflows; of those that no list can be asked for, the current one."""
        if plain := [workflow_id for workflow_id in workflow_ids if listable(workflow_id)]:
            async for page in self._executions.pages(namespace, with_ids(plain)):
                yield page
        for workflow_id in workflow_ids:
            if not listable(workflow_id):
                run = await self._executions.look(namespace, workflow_id, "")
                yield [] if run is None else [run]

    async def _sought(self, entry: Entry, finding: Difference) -> Difference:
        """The finding; of a run that is not where it should be, after the other namespaces were searched for it."""
        if finding.kind in (Kind.MISSING, Kind.REPLACED):
            for namespace in self._scope.retention_s:
                if namespace != entry.namespace:
                    run = await self._executions.look(namespace, finding.workflow_id, entry.run_id or "")
                    if run is not None and entry.message_id == run.message_id:
                        return found_elsewhere(entry, run)
        return finding

    async def _account(self, runs: Sequence[Run]) -> None:
        """Find the messages of runs that carry one's id, and judge those that were not judged for their own sake."""
        known: defaultdict[UUID, list[Entry]] = defaultdict(list)
        message_ids = list({run.message_id for run in runs if run.message_id is not None})
        for entry in await self._ledger.audit_lookup(message_ids) if message_ids else ():
            known[entry.message_id].append(self._complete(entry))
        further: set[Entry] = set()
        async with anyio.create_task_group() as tasks:
            for run in runs:
                entries = known[run.message_id] if run.message_id else []
                verdict = unaccounted(run, entries, self._scope)
                if isinstance(verdict, Difference):
                    tasks.start_soon(self._confirm, verdict, run, entries)
                else:
                    further.update(verdict)
        await self._judge(further)

    async def _confirm(self, finding: Difference, run: Run, entries: Sequence[Entry]) -> None:
        """Add what is found of a run, unless it is gone by now, of a known chain, or older than the history."""
        answer = await self._executions.look(run.namespace, run.workflow_id, run.run_id)
        if answer is None or any(entry.run_id == answer.first_run_id for entry in entries if entry.run_id):
            return
        if not entries and run.message_id is not None:
            begun_at = enqueued_at(run.message_id)
            if begun_at is None:
                first: Run | None = answer
                if answer.is_later:
                    first = await self._executions.look(run.namespace, run.workflow_id, answer.first_run_id or "")
                begun_at = None if first is None else first.started_at
            if begun_at is None or begun_at < self._scope.horizon:
                return
            self.ghosts[answer.workflow_id, answer.first_run_id or answer.run_id] = answer
        self._report.add(finding)


def completing(routes: Routes | None, namespace: str) -> Callable[[Entry], Entry]:
    """What fills in what a message does not say itself: its route's word, and the connection's namespace."""

    def complete(entry: Entry) -> Entry:
        route = None if entry.operation is not None or routes is None else routes.match(entry.topic)
        if route is not None:
            said = {
                name: getattr(route.target, name)
                for name in ("operation", "workflow", "namespace", "task_queue")
                if name not in route.texts
            }
            entry = entry._replace(**said)
        return entry if entry.namespace else entry._replace(namespace=namespace)

    return complete


def _slices(workflows: Mapping[str, list[Entry]]) -> Iterator[dict[str, list[Entry]]]:
    pairs = iter(workflows.items())
    while some := dict(islice(pairs, _TOGETHER)):
        yield some
