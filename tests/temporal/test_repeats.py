"""Every operation, policy and fate of the workflow, with answers that get lost: nothing happens twice or to a stranger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import anyio
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.worker import Worker

from outbox.model.message import Message
from outbox.model.sink import Delivered, Outcome, Sink, Throttled, Unavailable
from outbox_bench.temporal_stub.grpc_server import GrpcRefusal
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink import temporal_sink
from tests.support.eventually import eventually
from tests.support.grpc_proxy import RESOURCE_EXHAUSTED, UNAVAILABLE, GrpcProxy, proxying
from tests.support.running import counts, fetch
from tests.support.running import running as running_worker
from tests.support.shared import SharedServer
from tests.temporal.conftest import CONTEXT, message, start
from tests.temporal.definitions import ContinuesOnSignal

pytestmark = pytest.mark.timeout(60)

METHODS = {
    "start_workflow": "StartWorkflowExecution",
    "signal_with_start_workflow": "SignalWithStartWorkflowExecution",
    "signal_workflow": "SignalWorkflowExecution",
    "cancel_workflow": "RequestCancelWorkflowExecution",
    "terminate_workflow": "TerminateWorkflowExecution",
}
POLICIES = [
    (reuse, conflict)
    for reuse in ("reject_duplicate", "allow_duplicate", "allow_duplicate_failed_only")
    for conflict in ("fail", "use_existing", "terminate_existing")
    if (reuse, conflict) != ("reject_duplicate", "terminate_existing")  # refused before it is sent
]


Fate = Callable[["Ground"], Awaitable[int]]
"""What happens to the workflow between two deliveries. It returns how many runs there are afterwards."""


@dataclass
class Ground:
    """A workflow id on a real server behind a proxy, and a sink that reaches it through the proxy."""

    client: Client
    proxy: GrpcProxy
    sink: Sink
    task_queue: str
    workflow_id: str

    def command(self, operation: str, **more: object) -> dict[str, Any]:
        """A target for the operation on this workflow id."""
        if operation == "start_workflow":
            return start(self.workflow_id, "ContinuesOnSignal", self.task_queue, **more)
        if operation == "signal_with_start_workflow":
            both = start(self.workflow_id, "ContinuesOnSignal", self.task_queue, signal="add", arguments="none", **more)
            return both | {"operation": operation, "signal_arguments": "none"}
        target = {"operation": operation, "workflow_id": self.workflow_id, **more}
        return target | {"signal": "add"} if operation == "signal_workflow" else target

    async def each(self, fates: Sequence[Fate], check: Callable[[Ground, Fate], Awaitable[None]]) -> None:
        """Check every fate at the same time, each on a workflow id of its own."""
        async with anyio.create_task_group() as tasks:
            for fate in fates:
                tasks.start_soon(
                    check, replace(self, workflow_id=f"{self.workflow_id}-{named(fate)}"), fate, name=named(fate)
                )

    @property
    def handle(self) -> WorkflowHandle:
        return self.client.get_workflow_handle(self.workflow_id)

    async def begin(self) -> str:
        """Start a run that is not the message's, if need be in the place of one that has ended; return its run id."""
        begun = await self.client.start_workflow(
            "ContinuesOnSignal",
            1,
            id=self.workflow_id,
            task_queue=self.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
        assert begun.first_execution_run_id is not None
        return begun.first_execution_run_id

    async def go_on(self) -> None:
        """Have the workflow continue as new."""
        before = (await self.handle.describe()).run_id
        await self.handle.signal("go_on")
        await eventually(self._current, lambda run_id: run_id != before)

    async def end(self) -> None:
        """Have the workflow complete."""
        await self.handle.signal("end")
        await self.handle.result()

    async def terminate(self) -> None:
        await self.handle.terminate()

    async def _current(self) -> str:
        return (await self.handle.describe()).run_id

    async def runs(self) -> dict[str, list[Any]]:
        """The events of each run, by run id."""
        listed = [run async for run in self.client.list_workflows(f"WorkflowId = '{self.workflow_id}'")]
        return {
            run.run_id: list(
                (await self.client.get_workflow_handle(self.workflow_id, run_id=run.run_id).fetch_history()).events
            )
            for run in listed
        }

    async def seen(self, count: int) -> None:
        """Return once Temporal's list shows so many runs."""
        await eventually(self.runs, lambda runs: len(runs) >= count)


@pytest.fixture
async def ground(
    temporal_server: SharedServer, temporal_client: Client, environment: pytest.MonkeyPatch, workflow_id: str
) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxying(temporal_server.address))
        environment.setenv("TEMPORAL_ADDRESS", proxy.address)
        sink = await stack.enter_async_context(temporal_sink(CONTEXT))
        worker = Worker(temporal_client, task_queue=workflow_id, workflows=[ContinuesOnSignal])
        await stack.enter_async_context(serving(worker))
        yield Ground(temporal_client, proxy, sink, workflow_id, workflow_id)


async def lives(ground: Ground) -> int:
    return 1


async def completes(ground: Ground) -> int:
    await ground.end()
    return 1


async def is_terminated(ground: Ground) -> int:
    await ground.terminate()
    return 1


async def continues(ground: Ground) -> int:
    await ground.go_on()
    return 2


async def continues_and_completes(ground: Ground) -> int:
    await ground.go_on()
    await ground.end()
    return 2


async def continues_and_is_terminated(ground: Ground) -> int:
    await ground.go_on()
    await ground.terminate()
    return 2


async def is_succeeded(ground: Ground) -> int:
    await ground.end()
    await ground.begin()
    return 2


async def is_succeeded_and_all_have_ended(ground: Ground) -> int:
    await ground.end()
    await ground.begin()
    await ground.terminate()
    return 2


async def continues_and_is_succeeded(ground: Ground) -> int:
    await ground.go_on()
    await ground.end()
    await ground.begin()
    return 3


FATES: list[Fate] = [
    lives,
    completes,
    is_terminated,
    continues,
    continues_and_completes,
    continues_and_is_terminated,
    is_succeeded,
    is_succeeded_and_all_have_ended,
    continues_and_is_succeeded,
]


def named(value: object) -> str:
    return getattr(value, "__name__", str(value))


def effects(events: list[Any], message_id: UUID) -> int:
    """How often the message acted on a run that it found: signals, requests to cancel, terminations."""
    mine = str(message_id)
    return sum(
        event.workflow_execution_signaled_event_attributes.request_id == mine
        or event.workflow_execution_cancel_requested_event_attributes.identity.endswith(mine)
        or event.workflow_execution_terminated_event_attributes.identity.endswith(mine)
        for event in events
    )


def chains_of(runs: dict[str, list[Any]], message_id: UUID) -> set[str]:
    """The chains of runs that the message started."""
    started = [events[0].workflow_execution_started_event_attributes for events in runs.values()]
    return {
        attributes.first_execution_run_id
        for attributes in started
        if attributes.memo.fields["outbox_message_id"].data == f'"{message_id}"'.encode()
    }


async def lost_twice(ground: Ground, sent: Message, fate: Fate) -> Outcome:
    """Deliver, and lose the answer; once more after the workflow's fate; and then with an answer."""
    first = await ground.sink.deliver(sent)
    assert isinstance(first, Unavailable), first
    assert first.meaning == "unanswered"
    await ground.seen(await fate(ground))
    await ground.sink.deliver(sent._replace(setbacks=1))
    return await ground.sink.deliver(sent._replace(setbacks=2))


@pytest.mark.parametrize(("reuse", "conflict"), POLICIES)
@pytest.mark.parametrize("operation", ["start_workflow", "signal_with_start_workflow"])
async def test_a_start_happens_once(ground: Ground, operation: str, reuse: str, conflict: str) -> None:
    is_signal = operation == "signal_with_start_workflow"
    ground.proxy.lose(2, METHODS[operation])

    async def check(ground: Ground, fate: Fate) -> None:
        policies = {} if is_signal and conflict == "fail" else {"id_conflict_policy": conflict}  # which it refuses
        target = ground.command(operation, id_reuse_policy=reuse, **policies)
        sent = message(target) if is_signal else message(target, payload=1)
        outcome = await lost_twice(ground, sent, fate)
        runs = await ground.runs()
        assert len(chains_of(runs, sent.message_id)) == 1, fate
        assert isinstance(outcome, Delivered), (fate, outcome)
        assert not outcome.duplicate, fate
        assert sum(effects(events, sent.message_id) for events in runs.values()) == is_signal, fate

    await ground.each(FATES, check)


async def is_succeeded_after_its_end(ground: Ground) -> int:
    await ground.begin()
    return 2


async def is_succeeded_after_its_end_and_all_have_ended(ground: Ground) -> int:
    await ground.begin()
    await ground.terminate()
    return 2


ENDED = [lives, is_succeeded_after_its_end, is_succeeded_after_its_end_and_all_have_ended]
"""The fates of a workflow that the message itself has ended."""


@pytest.mark.parametrize(
    ("operation", "fates"),
    [
        ("signal_workflow", FATES),
        ("signal_with_start_workflow", FATES),
        ("cancel_workflow", FATES),
        ("terminate_workflow", ENDED),
    ],
)
async def test_what_reached_a_run_reaches_no_other(ground: Ground, operation: str, fates: list[Fate]) -> None:
    """Whether the workflow goes on under another run id, or another workflow has taken its workflow id."""
    reuse = {"id_reuse_policy": "allow_duplicate"} if operation == "signal_with_start_workflow" else {}
    ground.proxy.lose(2, METHODS[operation])

    async def check(ground: Ground, fate: Fate) -> None:
        first_run = await ground.begin()
        sent = message(ground.command(operation, **reuse))
        outcome = await lost_twice(ground, sent, fate)
        assert isinstance(outcome, Delivered), (fate, outcome)
        runs = await ground.runs()
        acted_on = {run: n for run, events in runs.items() if (n := effects(events, sent.message_id))}
        assert acted_on == {first_run: 1}, fate
        assert not chains_of(runs, sent.message_id), fate

    await ground.each(fates, check)


async def test_signal_with_start_replaces_a_running_workflow_once(ground: Ground) -> None:
    replaced = await ground.begin()
    policies = {"id_reuse_policy": "allow_duplicate", "id_conflict_policy": "terminate_existing"}
    sent = message(ground.command("signal_with_start_workflow", **policies))
    ground.proxy.lose(2, METHODS["signal_with_start_workflow"])
    outcome = await lost_twice(ground, sent, is_succeeded_by_none)
    assert isinstance(outcome, Delivered)
    runs = await ground.runs()
    [ours] = chains_of(runs, sent.message_id)
    assert {run: effects(events, sent.message_id) for run, events in runs.items()} == {replaced: 0, ours: 1}
    assert runs[replaced][-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED


async def is_succeeded_by_none(ground: Ground) -> int:
    return 2


@pytest.mark.parametrize("operation", ["signal_workflow", "cancel_workflow", "terminate_workflow"])
async def test_what_a_dead_worker_did_is_found_by_the_next(ground: Ground, operation: str) -> None:
    """The dead worker wrote nothing down: the next one knows only that the message was claimed before."""
    first_run = await ground.begin()
    sent = message(ground.command(operation))
    assert isinstance(await ground.sink.deliver(sent), Delivered)
    fate = is_succeeded_after_its_end if operation == "terminate_workflow" else is_succeeded
    await ground.seen(await fate(ground))
    assert await ground.sink.deliver(sent._replace(deliveries=2)) == Delivered(ground.workflow_id, first_run)
    runs = await ground.runs()
    assert {run for run, events in runs.items() if effects(events, sent.message_id)} == {first_run}


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("succeeded", [False, True])
async def test_what_never_got_through_is_done_by_the_repeat(ground: Ground, operation: str, succeeded: bool) -> None:
    """Also if the workflow id has changed hands meanwhile: the first delivery could have come so late."""
    reuse = {"id_reuse_policy": "allow_duplicate"} if "start" in operation else {}
    sent = message(ground.command(operation, **reuse))
    ground.proxy.script = lambda name, _: GrpcRefusal(UNAVAILABLE, "gone") if name == METHODS[operation] else None
    if operation != "start_workflow":
        await ground.begin()
    assert isinstance(await ground.sink.deliver(sent), Unavailable)
    if operation != "start_workflow" and succeeded:
        await ground.seen(await is_succeeded(ground))
    ground.proxy.script = lambda _name, _request: None
    assert isinstance(await ground.sink.deliver(sent._replace(setbacks=1)), Delivered)
    await ground.seen(1)
    runs = await ground.runs()
    done = sum(effects(events, sent.message_id) for events in runs.values())
    assert done + len(chains_of(runs, sent.message_id)) == 1


@pytest.mark.parametrize("operation", ["cancel_workflow", "terminate_workflow"])
async def test_an_end_by_another_message_does_not_count_as_ours(ground: Ground, operation: str) -> None:
    await ground.begin()
    another = message(ground.command(operation))
    assert isinstance(await ground.sink.deliver(another), Delivered)
    fate = is_succeeded_after_its_end if operation == "terminate_workflow" else is_succeeded
    await ground.seen(await fate(ground))
    ours = message(ground.command(operation))
    assert isinstance(await ground.sink.deliver(ours._replace(deliveries=2)), Delivered)
    runs = await ground.runs()
    assert sorted(effects(events, ours.message_id) for events in runs.values()) == [0, 1]


async def test_a_question_that_temporal_does_not_answer_delays_the_repeat(ground: Ground) -> None:
    """Repeating it unasked could be wrong, and so could giving it up."""
    await ground.begin()
    sent = message(ground.command("terminate_workflow"))
    answers = {
        "DescribeWorkflowExecution": GrpcRefusal(UNAVAILABLE, "gone"),
        "ListWorkflowExecutions": GrpcRefusal(RESOURCE_EXHAUSTED, "too many lists"),
    }
    for name, refusal in answers.items():
        ground.proxy.script = lambda called, _, name=name, refusal=refusal: refusal if called == name else None
        outcome = await ground.sink.deliver(sent._replace(deliveries=2))
        assert isinstance(outcome, Unavailable | Throttled)
        assert getattr(outcome, "scope", "message") == "message", "a limit of lists is no measure for deliveries"
        assert "an earlier delivery may have got through" in outcome.detail
        assert (await ground.handle.describe()).status is WorkflowExecutionStatus.RUNNING


async def test_a_long_running_workflow_costs_no_list(ground: Ground) -> None:
    """Nothing else can have had its workflow id since the message exists."""
    await ground.begin()
    sent = message(ground.command("signal_workflow"))
    await ground.sink.deliver(sent._replace(deliveries=2, age_s=-500.0))
    assert [call for call in ground.proxy.calls if "Execution" in call] == [
        "DescribeWorkflowExecution",
        "SignalWorkflowExecution",
    ]


async def test_signal_with_start_that_ends_its_workflow_runs_once_through_the_worker(
    ground: Ground, database: str
) -> None:
    """The whole way: the answer is lost twice, the worker delivers a third time."""
    statement = """select outbox.signal_with_start_workflow('ContinuesOnSignal', $1, 'end', signal_input => '100',
                   task_queue => $1, id_reuse_policy => 'allow_duplicate')"""
    await fetch(database, statement, ground.workflow_id)
    ground.proxy.lose(2, METHODS["signal_with_start_workflow"])
    async with running_worker(database, factory=temporal_sink) as relay:
        await relay.wait_completed(1)
    await ground.handle.result()
    await ground.seen(1)
    [events] = (await ground.runs()).values()
    assert sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in events) == 1
    assert await counts(database) == {"message": 0, "history": 1, "dead_letter": 0}
