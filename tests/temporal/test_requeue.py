"""Dead letters put back, towards the real Temporal: it recognises them, and says for how long."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from outbox.model.message import Message
from outbox.model.sink import Delivered, Forgetful, Sink, Unavailable
from outbox.store.dead_letters import DeadLetters
from outbox.store.messages import Burial
from outbox_temporal.sink import temporal_sink
from tests.cli.test_cli import outbox
from tests.support.running import running
from tests.support.sql import Clock, clock

pytestmark = pytest.mark.timeout(90)


async def one_claimed(worker: Clock, workflow_id: str) -> Message:
    await worker.pool.fetch("select outbox.start_workflow('Probe', $1, task_queue => 'unserved')", workflow_id)
    [message] = await worker.claim()
    return message


async def buried(worker: Clock, workflow_id: str, *, hours_ago: float) -> UUID:
    """A dead letter that was first tried so long ago."""
    message = await one_claimed(worker, workflow_id)
    await worker.store.bury([Burial(message, "quarantined", False, "QUARANTINED", "workers died")])
    await worker.pool.execute(
        "update outbox.dead_letter set claimed_at = claimed_at - make_interval(secs => 3600 * $2) where message_id = $1",
        message.message_id,
        hours_ago,
    )
    return message.message_id


@pytest.mark.parametrize("closed", [False, True])
async def test_what_had_got_through_before_it_was_buried_is_delivered_as_the_same_run(
    database: str, sink: Sink, temporal_client: Client, workflow_id: str, closed: bool
) -> None:
    async with clock(database) as worker:
        worker.store.now = None
        message = await one_claimed(worker, workflow_id)
        first = await sink.deliver(message)
        assert isinstance(first, Delivered)
        if closed:
            await temporal_client.get_workflow_handle(workflow_id).terminate()
        await worker.store.bury([Burial(message, "quarantined", False, "QUARANTINED", "workers died")])
        assert await DeadLetters(worker.pool, "outbox").requeue([message.message_id]) == {message.message_id: True}
        async with running(database, factory=temporal_sink) as relay:
            await relay.wait_completed(1)
        [row] = await worker.pool.fetch("select message_id, outcome, run_id from outbox.history")
    assert tuple(row) == (message.message_id, "delivered", first.run_id)
    found = [run.run_id async for run in temporal_client.list_workflows(f"WorkflowId = '{workflow_id}'")]
    assert set(found) <= {first.run_id}


async def test_memory_is_the_namespaces_retention(sink: Sink, temporal_client: Client) -> None:
    name, retention = f"short-{uuid4().hex[:8]}", Duration()
    retention.FromTimedelta(timedelta(days=3))
    request = RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=retention)
    await temporal_client.workflow_service.register_namespace(request)
    assert isinstance(sink, Forgetful)
    assert await sink.memory_s(name) == 3 * 86_400
    assert await sink.memory_s(None) == 86_400  # as the dev server makes `default`
    assert isinstance(await sink.memory_s("no-such-namespace"), Unavailable)


async def test_requeue_skips_what_temporal_may_have_forgotten(
    database: str, temporal_client: Client, workflow_id: str
) -> None:
    environment = {"TEMPORAL_ADDRESS": temporal_client.service_client.config.target_host}
    async with clock(database) as worker:
        worker.store.now = None
        old = await buried(worker, workflow_id, hours_ago=24.1)
        young = await buried(worker, f"{workflow_id}-young", hours_ago=23.9)
        done = await outbox(database, "dead", "requeue", "--all", "--yes", **environment)
        assert (done.code, done.out) == (1, "1 requeued\n")
        assert done.err.startswith(
            "outbox: 1 left dead, first tried longer ago than the sink recognises a repeat (24 h); "
        )
        assert done.err.endswith(f"use --force: {old}\n")
        assert await worker.pool.fetchval("select array_agg(message_id) from outbox.message") == [young]
        away = await outbox(database, "dead", "requeue", "--all", "--yes", TEMPORAL_ADDRESS="127.0.0.1:1")
        assert (away.code, away.out) == (1, "no dead letter to requeue\n")
        assert "the sink did not say for how long it recognises a repeat (NOT_CONNECTED: " in away.err
        forced = await outbox(database, "dead", "requeue", str(old), "--yes", "--force", **environment)
        assert (forced.code, forced.out) == (0, "1 requeued\n")
        assert forced.err.startswith("outbox: warning: 1 forced, first tried longer ago")
