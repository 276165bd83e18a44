"""Every event of a worker reaches all subscribers: each metric and each field of `/status` is seen to change."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any, get_args

import pytest

from outbox.model import events
from outbox.model.events import (
    Buried,
    Held,
    ModeChanged,
    PresenceShown,
    Released,
    Resumed,
    Retried,
    SourceDegraded,
    SourceReady,
)
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected, Throttled, Unknown
from tests.support.probing import free_port, get, scrape
from tests.support.running import Running, enqueue, fetch, running
from tests.support.sinks import FakeSink
from tests.unit.test_logs import sample

pytestmark = pytest.mark.timeout(180)
CONSTANT = {
    "outbox_build_info",  # the version
    "outbox_delivery_slots",  # a setting
    "outbox_log_lines_dropped_total",  # of the process's own log, which a test has not
}
"""What does not change while a worker runs."""
BY_THE_SERVER = {
    "outbox_dead_tuples",
    "outbox_xmin_age_transactions",
    "outbox_notification_queue_ratio",
    "outbox_history_partitions",
    "outbox_history_days_ahead",
    "outbox_message_table_bytes",
    "outbox_loops_overdue",
    "outbox_loop_lag_seconds",
}
"""What no event of a worker moves: it is asked of PostgreSQL and of the loops."""
RARE = (
    "LeaseLost",
    "Rescued",
    "SettleRefused",
    "DeliveryStuck",
    "MaintenanceFailed",
    "PaceChanged",
)
"""Events that need a broken server: the test emits them into the worker's own stream, as its parts would."""


class Watch:
    """Everything that a worker's pages have shown."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.metrics: dict[str, set[str]] = defaultdict(set)
        self.status: dict[str, set[str]] = defaultdict(set)

    async def look(self) -> None:
        """Look once, at facts that are fresh."""
        for name, values in (await scrape(self._port)).items():
            if name.startswith("outbox_") and not name.endswith(("_created", "_bucket")):
                self.metrics[name].add(str(sorted(values.items())))
        answer = json.loads((await get(self._port, "/status")).body)
        for name, value in answer["this_worker"].items():
            self.status[name].add(json.dumps(value, sort_keys=True))
        for name in ("messages", "dead_letters", "pauses", "limits", "errors", "completed", "workers"):
            self.status[name].add(json.dumps(answer[name], sort_keys=True))


def answer(message: Message) -> Outcome:
    """What the topic asks for."""
    return {
        "bad": Rejected("NO", "never"),
        "flaky": Failed("HM", "later"),
        "lost": Unknown("LOST", "no answer"),
        "again": Delivered("w", "r", duplicate=True),
    }.get(message.topic, Delivered())


async def lead_a_life(relay: Running, sink: FakeSink, database: str, watch: Watch) -> None:
    """Everything that may happen to a worker on sound servers, with a look after each thing."""
    for topic in ("good", "bad", "flaky", "lost", "again"):
        await enqueue(database, 2, topic=topic)
    await relay.log.wait_for(Buried)
    await relay.log.wait_for(Retried, lambda event: isinstance(event.outcome, Unknown))
    await watch.look()
    sink.block()
    await enqueue(database, 3)
    await sink.wait_until(lambda: sink.in_flight >= 1)
    await fetch(database, "select outbox.pause('mail.*'), outbox.limit_topic('x', 5)")
    await fetch(database, "select outbox.enqueue('later', available_at => now() + interval '1 hour')")
    await fetch(database, "update outbox.message set due_at = due_at - interval '9 s' where leased_until is null")
    await watch.look()
    sink.available = False
    sink.unblock()
    await relay.log.wait_for(Held)
    await relay.log.wait_for(Released, lambda event: event.why == "hold")
    await fetch(database, "insert into outbox.worker (name, version) values ('another', '1')")
    await watch.look()
    sink.available = True
    await relay.log.wait_for(Resumed)
    mark = len(relay.log)
    await fetch(
        database, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'outbox listen'"
    )
    await relay.log.wait_for(SourceReady, after=mark)
    relay.worker._emit(SourceDegraded("listen", 1.0))
    await watch.look()
    await fetch(database, "insert into outbox.control (name, value) values ('mode', '\"poll\"')")
    await relay.log.wait_for(ModeChanged, lambda event: event.mode == "poll")
    await watch.look()


async def test_every_metric_and_every_field_of_the_status_is_seen_to_change(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.observability.pages._FACTS_EVERY_S", 0.0)
    monkeypatch.setattr("outbox.observability.pages._STATUS_EVERY_S", 0.0)
    sink, port = FakeSink(answer), free_port()
    async with running(database, sink, http_port=port, max_attempts=2) as relay:
        watch = Watch(port)
        await watch.look()
        await lead_a_life(relay, sink, database, watch)
        for name in RARE:
            relay.worker._emit(sample(getattr(events, name)))
        relay.worker._emit(events.PresenceLost("gone"))
        await watch.look()
        relay.worker._emit(events.DatabaseLost("text", "gone"))
        await watch.look()
        relay.worker._emit(events.DatabaseRestored("text", 1.0))
        sink.answer = lambda _message: Throttled("SLOW", "too many")
        await enqueue(database, 1)
        await relay.log.wait_for(events.PaceChanged, lambda event: event.cause.startswith("SLOW"))
        await watch.look()
        sink.answer = answer
        sink.block()
        await enqueue(database, 1)
        await sink.wait_until(lambda: sink.in_flight >= 1)
        relay.worker.stop()
        await watch.look()
        sink.unblock()
        assert {name for name, seen in watch.metrics.items() if len(seen) == 1} <= CONSTANT | BY_THE_SERVER
        still = {name for name, seen in watch.status.items() if len(seen) == 1}
        assert still <= {"name", "configured", "sink"}, still


async def test_every_event_reaches_the_worker_itself_and_every_page(database: str) -> None:
    """The parts of a worker have one stream: all of them receive each event."""
    heard: list[Any] = []
    async with running(database) as relay:
        state = relay.worker.state
        assert state.present
        await relay.log.wait_for(PresenceShown)
        relay.worker._emit.subscribe(heard.append)
        for kind in get_args(events.Event):
            relay.worker._emit(sample(kind))
        assert {type(event) for event in heard} >= set(get_args(events.Event))
        assert {type(event) for event in relay.log.events} >= set(get_args(events.Event))
