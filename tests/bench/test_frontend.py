"""The stub of Temporal's frontend, asked by the real SDK: it answers as Temporal does."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from time import monotonic
from uuid import uuid4

import anyio
import pytest
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure, WorkflowExecutionAlreadyStartedFailure
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from outbox_bench.load.direct import request
from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.postgres import running
from outbox_temporal.sink import temporal_sink
from outbox_temporal.sink.outcomes import detail
from outbox_temporal.target.target import parse
from tests.support.sinks import TIMEOUT_S
from tests.temporal.conftest import CONTEXT, message, start


@pytest.fixture
async def stub() -> AsyncIterator[StubFrontend]:
    async with running(StubFrontend.start) as server:
        yield server


@pytest.fixture
async def client(stub: StubFrontend) -> Client:
    return await Client.connect(stub.address)


async def started(client: Client) -> int:
    return (await client.count_workflows()).count


@pytest.mark.parametrize("compression", [GrpcCompression.NONE, GrpcCompression.GZIP])
async def test_a_workflow_is_started_once(stub: StubFrontend, compression: GrpcCompression) -> None:
    client = await Client.connect(stub.address, grpc_compression=compression)
    handle = await client.start_workflow("Any", {"n": 1}, id="one", task_queue="any")
    with pytest.raises(WorkflowAlreadyStartedError) as refused:
        await client.start_workflow("Any", {"n": 2}, id="one", task_queue="any")
    assert refused.value.run_id == handle.result_run_id
    assert await started(client) == 1


async def test_a_repeat_is_known_by_its_request_id(client: Client) -> None:
    sent = request("default", uuid4(), "one")
    first, second = [await client.workflow_service.start_workflow_execution(sent) for _ in range(2)]
    assert first == second
    other = StartWorkflowExecutionRequest()
    other.CopyFrom(sent)
    other.request_id = "another"
    with pytest.raises(RPCError) as refused:
        await client.workflow_service.start_workflow_execution(other)
    assert refused.value.status is RPCStatusCode.ALREADY_EXISTS
    holder = detail(refused.value, WorkflowExecutionAlreadyStartedFailure)
    assert holder is not None
    assert (holder.start_request_id, holder.run_id) == (sent.request_id, first.run_id)


async def test_a_start_may_use_or_end_the_run_that_exists(client: Client) -> None:
    begin = partial(client.start_workflow, "Any", id="one", task_queue="any")
    first = await begin()
    existing = await begin(id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING)
    assert existing.result_run_id == first.result_run_id
    fresh = await begin(id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING)
    assert fresh.result_run_id != first.result_run_id
    assert await started(client) == 2


async def test_signals_reach_what_was_started_and_nothing_else(client: Client) -> None:
    handle = await client.start_workflow("Any", id="one", task_queue="any", start_signal="go", start_signal_args=[1])
    await handle.signal("again", 2)
    same = await client.start_workflow("Any", id="one", task_queue="any", start_signal="go")
    assert same.result_run_id == handle.result_run_id
    with pytest.raises(RPCError, match="not found") as refused:
        await client.get_workflow_handle("unserved").signal("go")
    assert refused.value.status is RPCStatusCode.NOT_FOUND
    assert await started(client) == 1


async def test_what_it_does_not_know_it_refuses(client: Client) -> None:
    with pytest.raises(RPCError, match="DescribeWorkflowExecution") as refused:
        await client.get_workflow_handle("one").describe()
    assert refused.value.status is RPCStatusCode.UNIMPLEMENTED


async def test_large_requests_and_many_at_once_are_answered(client: Client) -> None:
    async def start_one(n: int) -> None:
        await client.start_workflow("Any", "x" * (200_000 if n % 50 == 0 else 10), id=f"many-{n}", task_queue="any")

    async with anyio.create_task_group() as tasks:
        for n in range(2000):
            tasks.start_soon(start_one, n)
    assert await started(client) == 2000


async def test_the_oldest_workflows_are_forgotten() -> None:
    async with running(partial(StubFrontend.start, FrontendOptions(remembered=2))) as stub:
        client = await Client.connect(stub.address)
        for name in ("one", "two", "three", "one"):
            await client.start_workflow("Any", id=name, task_queue="any")
        with pytest.raises(WorkflowAlreadyStartedError):
            await client.start_workflow("Any", id="three", task_queue="any")
        assert await started(client) == 4


async def test_answers_take_the_configured_latency() -> None:
    async with running(partial(StubFrontend.start, FrontendOptions(latency_ms=30, jitter_ms=5))) as stub:
        client = await Client.connect(stub.address)
        began_s = monotonic()
        await client.start_workflow("Any", id="one", task_queue="any")
        assert monotonic() - began_s >= 0.030
        with pytest.raises(RPCError):  # given up before the answer, which must not disturb the next
            await client.start_workflow("Any", id="two", task_queue="any", rpc_timeout=timedelta(milliseconds=5))
        await client.start_workflow("Any", id="three", task_queue="any")


async def test_a_share_of_the_starts_is_refused() -> None:
    async with running(partial(StubFrontend.start, FrontendOptions(throttled=0.3, unavailable=0.2, seed=7))) as stub:
        client = await Client.connect(stub.address)
        seen: Counter[RPCStatusCode] = Counter()
        for n in range(200):
            try:
                await client.workflow_service.start_workflow_execution(request("default", uuid4(), f"wf-{n}"))
            except RPCError as error:
                seen[error.status] += 1
                throttled = error.status is RPCStatusCode.RESOURCE_EXHAUSTED
                assert (detail(error, ResourceExhaustedFailure) is not None) == throttled
        assert 30 < seen[RPCStatusCode.RESOURCE_EXHAUSTED] < 90
        assert 15 < seen[RPCStatusCode.UNAVAILABLE] < 65
        assert await started(client) == 200 - seen.total()


async def test_the_raw_loop_sends_the_same_request_as_the_sink(
    stub: StubFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", stub.address)
    target = start("wf", "Bench", "outbox-bench", arguments="one")
    sent = message(target, raw='{"text" : "%s"}' % ("x" * 100))
    async with temporal_sink(CONTEXT) as sink:
        parsed = parse(sent.target or "")
        built = await sink._requests.start(sent, parsed)  # type: ignore[attr-defined]
    own = request("default", sent.message_id, "wf")
    own.identity = built.identity
    assert built == own


async def test_it_serves_again_after_a_restart(stub: StubFrontend) -> None:
    client = await Client.connect(stub.address)
    await client.start_workflow("Any", id="one", task_queue="any")
    await anyio.to_thread.run_sync(stub.restart)
    with anyio.fail_after(TIMEOUT_S):
        await client.start_workflow("Any", id="one", task_queue="any")
    assert await started(client) == 1
