"""What a scrape shows, against what happened and what stands in the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic

import anyio
import pytest
from anyio import to_thread

from outbox import __version__
from outbox.model.events import Buried, Claimed, Held, Released, Resumed, Retried, SourceReady
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from outbox.observability.metrics import FACTS, STATES
from outbox.store.sql import query
from tests.support.probing import ask, free_port, get, scrape, total
from tests.support.running import enqueue, fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(60)


def answers(by_topic: dict[str, Outcome]) -> Callable[[Message], Outcome]:
    return lambda message: by_topic.get(message.topic, Delivered())


async def test_each_outcome_is_counted_once_and_each_stage_timed(database: str) -> None:
    sink = FakeSink(answers({"bad": Rejected("NO", "never"), "flaky": Failed("HM", "later")}))
    port = free_port()
    async with running(database, sink, http_port=port, max_attempts=2) as relay:
        await enqueue(database, 300)
        await fetch(database, "select outbox.enqueue('test', '{}', available_at => now() + interval '300 ms')")
        await enqueue(database, 2, topic="bad")
        await enqueue(database, topic="flaky")
        await relay.wait_completed(301)
        await relay.log.wait_for(Buried, lambda event: event.reason == "exhausted")
        await relay.log.wait_until(lambda: len(relay.log.of(Buried)) == 3 or None)
        samples = await scrape(port)
    assert relay.log.of(Retried)
    assert samples["outbox_deliveries_total"] == {
        ("delivered",): 301, ("failed",): 2, ("rejected",): 2, ("throttled",): 0, ("unknown",): 0,
    }  # fmt: skip
    assert samples["outbox_attempts_total"][()] == 4
    assert samples["outbox_buried_total"][("rejected",)] == 2
    assert samples["outbox_buried_total"][("exhausted",)] == 1
    assert samples["outbox_event_to_start_seconds_count"][()] == 300  # the scheduled one was meant to wait
    assert samples["outbox_stage_seconds_count"] == {("claim",): 300, ("deliver",): 301, ("settle",): 301}
    assert samples["outbox_settle_batch_messages_sum"][()] == 301
    assert samples["outbox_build_info"] == {(__version__,): 1}
    stages = samples["outbox_stage_seconds_sum"]
    assert 0 < stages[("claim",)] + stages[("deliver",)] < 300 * 20


async def test_the_state_of_the_whole_outbox_is_what_the_database_holds(database: str) -> None:
    sink, port = FakeSink(), free_port()
    async with running(database, sink, http_port=port) as relay:
        await sink.wait_until(lambda: sink.probes == 1)
        sink.available = False
        await enqueue(database, 5)
        await relay.log.wait_for(Held)

        def messages(kind: type[Claimed | Released]) -> int:
            return sum(len(event.messages) for event in relay.log.of(kind))

        # The hold may begin before all five are claimed.
        await relay.log.wait_until(lambda: messages(Released) == messages(Claimed) or None)
        await fetch(database, "select outbox.enqueue('test', '{}', available_at => now() + interval '1 hour')")
        await fetch(database, "update outbox.message set due_at = due_at - interval '40 s' where due_at < now()")
        samples = await scrape(port)
        assert samples["outbox_holding"][()] == 1
        assert samples["outbox_worker_state"][("holding",)] == 1
        assert samples["outbox_backlog_messages"][()] == 6
        assert samples["outbox_messages"][("scheduled",)] == 1
        assert samples["outbox_messages"][("pending",)] == 5
        assert 39 < samples["outbox_oldest_ready_age_seconds"][()] < 80
        assert samples["outbox_workers"][()] == 1
        assert samples["outbox_history_days_ahead"][()] >= 3
        assert samples["outbox_history_partitions"][()] >= 4
        assert samples["outbox_database_up"][()] == 1
        sink.available = True
        await relay.log.wait_for(Resumed)
        await relay.wait_completed(5)
        samples = await scrape(port)
        assert samples["outbox_holding"][()] == 0
        assert samples["outbox_holds_total"][()] == 1
        assert samples["outbox_hold_seconds_total"][()] > 0
        assert total(samples["outbox_released_total"]) >= 1


async def test_the_oldest_pause_is_shown_with_its_age_and_no_pause_with_none(database: str) -> None:
    async with connected(database) as connection:
        facts = query("status/facts")
        assert json.loads(await connection.fetchval(facts, 100))["oldest_pause_s"] == 0
        await connection.execute("select outbox.pause(topic => 'a'), outbox.pause(key => 'k')")
        await connection.execute("update outbox.pause set paused_at = now() - interval '2 days' where topic = 'a'")
    port = free_port()
    async with running(database, http_port=port):
        samples = await scrape(port)
    assert samples["outbox_pauses"][()] == 2
    assert 2 * 86_400 <= samples["outbox_oldest_pause_age_seconds"][()] < 2 * 86_400 + 60


async def test_sources_and_modes_are_shown_as_they_change(database: str) -> None:
    port = free_port()
    async with running(database, http_port=port) as relay:
        await relay.log.wait_for(SourceReady)
        samples = await scrape(port)
        assert samples["outbox_source_up"] == {("listen",): 1}
        assert samples["outbox_mode"][("auto",)] == 1
        mark = len(relay.log)
        await fetch(
            database,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'outbox listen' "
            "and datname = current_database()",
        )
        await relay.log.wait_for(SourceReady, after=mark)
        assert (await scrape(port))["outbox_source_losses_total"][("listen",)] == 1


async def test_many_requests_query_the_database_rarely_and_no_request_never(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    port = free_port()
    async with running(database, http_port=port) as relay:
        overview = relay.worker.state.overview
        assert overview

        def counted(name: str) -> Callable[[], Awaitable[object]]:
            really = getattr(overview, name)

            async def ask() -> object:
                asked[name] += 1
                return await really()

            return ask

        for name in ("facts", "applied_migrations", "status"):
            monkeypatch.setattr(overview, name, counted(name))
        await relay.log.wait_for(SourceReady)
        assert not asked
        began_s = monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                for path in ("/metrics", "/readyz", "/status", "/livez"):
                    tasks.start_soon(get, port, path)
        took_s = monotonic() - began_s
        assert asked["facts"] <= 1 + took_s / 10
        assert asked["applied_migrations"] <= 1 + took_s / 2
        assert asked["status"] <= 1 + took_s / 2


async def test_of_much_a_sample_is_read_and_scaled_up(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute(
            """
            insert into outbox.message (message_id, due_at, available_at, created_at, topic, payload)
            select outbox.new_message_id(), now() - interval '1 hour' + n * interval '1 ms', now(), now(), 'topic', '{"n": 1}'
            from generate_series(1, 30000) n
            """
        )
        exact = json.loads(await connection.fetchval(query("status/facts"), 1_000_000))
        rough = json.loads(await connection.fetchval(query("status/facts"), 200))
        assert exact["backlog"] == exact["states"]["pending"] == 30_000
        assert 20_000 < rough["backlog"] < 40_000
        assert abs(rough["oldest_ready_s"] - exact["oldest_ready_s"]) < 5
        assert set(exact) == {*FACTS, "states"}
        assert set(exact["states"]) == set(STATES)


async def test_status_reports_the_outbox_and_this_worker(database: str) -> None:
    port = free_port()
    async with running(database, http_port=port) as relay:
        await relay.log.wait_for(SourceReady)
        answer = await get(port, "/status")
        status = json.loads(answer.body)
        assert answer.status == 200
        assert status["this_worker"]["state"] == "running"
        assert status["this_worker"]["sources"] == {"listen": "ready"}
        assert status["messages"]["pending"] == 0
        assert status["this_worker"]["presence_shown"] is True
        assert [worker["name"] for worker in status["workers"]] == ["worker-1"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "text/plain; version=x",
        "application/openmetrics-text; version=1.0.0.0.0.0; escaping=nonsense",
        "application/openmetrics-text;version=99999999999999999999999999",
        "text/plain; version=1.0.0; escaping=\xff",
        ";;;,,,=",
        "application/openmetrics-text; version=1.0.0",
        "",
    ],
)
async def test_metrics_are_served_with_any_accept_header(database: str, accept: str) -> None:
    port = free_port()
    async with running(database, http_port=port):
        answer = await to_thread.run_sync(ask, port, "/metrics", "GET", {"Accept": accept})
    assert answer.status == 200
    assert "outbox_holding 0.0" in answer.body
