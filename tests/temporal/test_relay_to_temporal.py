"""The whole relay with the real adapter: what one message does to the others."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest
from temporalio.client import Client

from outbox.model.events import Buried, Completed
from outbox_temporal.sink import temporal_sink
from tests.support.running import counts, fetch, running

pytestmark = pytest.mark.timeout(90)
START = "select outbox.start_workflow($1, $2, $3::json, task_queue => 'unserved')"


async def test_largest_payload_that_enqueue_takes_is_taken_by_temporal(
    database: str, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_client.service_client.config.target_host)
    payload = '"' + "x" * (2_096_128 - 2) + '"'
    await fetch(database, START, "Probe", f"large-{uuid4()}", payload)
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await fetch(database, START, "Probe", "too-large", payload + " ")
    async with running(database, factory=temporal_sink) as relay:
        await relay.wait_completed(1)


async def test_poison_is_a_dead_letter_at_once_and_delays_no_other(
    database: str, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_client.service_client.config.target_host)
    reserved = """search_attributes => '{"WorkflowType": "x"}'"""
    await fetch(database, START.replace("task_queue", f"{reserved}, task_queue"), "Probe", "poison", "{}")
    for n in range(20):
        await fetch(database, START, "Probe", f"innocent-{n}", "{}")
    async with running(database, factory=temporal_sink, concurrency=2) as relay:
        buried = await relay.log.wait_for(Buried)
        await relay.wait_completed(20)
    assert buried.reason == "rejected"
    assert buried.message.target is not None
    assert "poison" in buried.message.target
    slowest_s = max(s.delivered_s for event in relay.log.of(Completed) for s in event.settlements)
    fastest_s = min(s.delivered_s for event in relay.log.of(Completed) for s in event.settlements)
    assert slowest_s - fastest_s < 5.0
    assert await counts(database) == {"message": 0, "history": 20, "dead_letter": 1}
    [dead] = await fetch(database, "select errors -> -1 ->> 'detail' as detail, attempts from outbox.dead_letter")
    assert dead["attempts"] == 1
    assert "WorkflowType" in dead["detail"]
