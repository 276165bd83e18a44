"""`outbox status` shows at once what workers do, why they do not deliver, and what fails of which topic."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from outbox.loops import lasting_fault as lasting
from outbox.model.events import DatabaseLost, Held, PresenceShown, Resumed
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.probing import free_port, scrape
from tests.support.processes import worker_process
from tests.support.running import enqueue, fetch, running
from tests.support.sinks import DOWN, FakeSink

pytestmark = pytest.mark.timeout(120)
AT_ONCE_S = 5.0
"""Far less than a heartbeat."""
NULL = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}


async def status(dsn: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((await outbox(dsn, "status", "--json")).out)
    return report


async def state(dsn: str) -> str:
    """What the register says of the only worker."""
    return str((await fetch(dsn, "select state from outbox.worker"))[0][0])


async def test_a_hold_shows_at_once_with_its_reason_and_where_the_sink_is(database: str) -> None:
    sink = FakeSink()
    sink.place = "Temporal at temporal.internal:7233, namespace orders"  # type: ignore[attr-defined]
    async with running(database, sink) as relay:
        await eventually(lambda: state(database), lambda said: said == "running", timeout_s=AT_ONCE_S)
        sink.available = False
        await enqueue(database, 1)
        await relay.log.wait_for(Held)
        await eventually(lambda: state(database), lambda said: said == "holding", timeout_s=AT_ONCE_S)
        shown = (await outbox(database, "status")).out
        assert f"worker-1 holds: {sink.place}: {DOWN.kind}: {DOWN.detail}" in shown  # type: ignore[attr-defined]
        sink.available = True
        await relay.log.wait_for(Resumed)
        await eventually(lambda: state(database), lambda said: said == "running", timeout_s=AT_ONCE_S)


async def test_a_drain_shows_at_once(database: str) -> None:
    sink = FakeSink()
    sink.block()
    async with running(database, sink) as relay:
        await enqueue(database, 1)
        await sink.wait_received(1)
        relay.worker.stop()
        await eventually(lambda: state(database), lambda said: said == "draining", timeout_s=AT_ONCE_S)
        sink.unblock()


async def test_a_killed_worker_counts_as_dead_at_once_also_without_other_workers(database: str, tmp_path: Path) -> None:
    with worker_process(tmp_path, "doomed", DATABASE_URL=database, **NULL) as doomed:
        await doomed.logged("presence shown")
        doomed.send(signal.SIGKILL)
        doomed.process.wait()

        async def seen() -> list[Any]:
            return [worker["lives"] for worker in (await status(database))["workers"]]

        await eventually(seen, lambda lives: lives == [False], timeout_s=20)
    shown = (await outbox(database, "status")).out
    assert "doomed  dead" in shown
    assert "no worker is running" in shown
    async with running(database, worker_name="survivor") as relay:
        await relay.log.wait_for(PresenceShown)
        shown = (await outbox(database, "status")).out
        assert "doomed    dead" in shown
        assert "survivor  running" in shown


async def test_a_worker_that_others_took_for_dead_and_that_comes_back_is_running(database: str) -> None:
    async with running(database):
        await eventually(lambda: state(database), lambda said: said == "running", timeout_s=AT_ONCE_S)
        await fetch(
            database,
            "with dead as (update outbox.worker set presence = null, state = 'dead') "
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'outbox presence' "
            "and datname = current_database()",
        )
        await eventually(lambda: state(database), lambda said: said == "running", timeout_s=AT_ONCE_S)
        assert [worker["lives"] for worker in (await status(database))["workers"]] == [True]


async def test_failures_are_counted_by_topic_and_cause(database: str) -> None:
    def answer(message: Message) -> Outcome:
        number = message.seq
        return {
            "orders": Rejected("BAD", f"workflow order-{number} has no input"),
            "mail": Rejected("BAD", "the address is missing"),
            "both": Failed("BAD", f"order {number} is locked by 'user {number}'"),
        }.get(message.topic, Delivered())

    async with running(database, FakeSink(answer), max_attempts=1) as relay:
        for topic, count in (("orders", 5), ("mail", 3), ("both", 2)):
            await enqueue(database, count, topic=topic)

        async def dead() -> int:
            return int((await fetch(database, "select count(*) from outbox.dead_letter"))[0][0])

        await eventually(dead, lambda count: count == 10)
        assert relay.log
    errors = (await status(database))["errors"]
    assert [(error["topic"], error["kind"], error["messages"], error["dead_letters"]) for error in errors] == [
        ("orders", "BAD", 5, 5),
        ("mail", "BAD", 3, 3),
        ("both", "BAD", 2, 2),
    ]


async def test_duplicates_and_discarded_messages_are_not_completed(database: str) -> None:
    def answer(message: Message) -> Outcome:
        return Delivered("w", "r", duplicate=message.topic == "again")

    async with running(database, FakeSink(answer)) as relay:
        await enqueue(database, 3)
        await enqueue(database, 2, topic="again")
        await relay.wait_completed(5)
    completed = (await status(database))["completed"]
    assert (completed["last_hour"], completed["last_minute"], completed["duplicates_last_hour"]) == (3, 3, 2)
    assert "duplicates" in (await outbox(database, "status")).out


async def test_a_discarded_dead_letter_does_not_count_as_expired(database: str) -> None:
    async with running(database, FakeSink(lambda _message: Rejected("NO", "no"))) as relay:
        await enqueue(database, 1)
        await relay.wait_buried()
    assert (await outbox(database, "dead", "discard", "--all", "--yes")).code == 0
    assert (await status(database))["completed"]["discarded_last_hour"] == 1
    assert "expired messages and deleted dead letters" in (await outbox(database, "status")).out


async def test_a_pause_says_how_many_messages_it_holds_and_the_doctor_finds_a_forgotten_one(database: str) -> None:
    await enqueue(database, 4, topic="mail.welcome")
    await enqueue(database, 2, topic="orders")
    await outbox(database, "pause", "--topic", "mail.*")
    assert [pause["holds"] for pause in (await status(database))["pauses"]] == [4]
    assert "holds 4" in (await outbox(database, "status")).out
    await fetch(database, "update outbox.pause set paused_at = now() - interval '3 hours'")
    report = json.loads((await outbox(database, "doctor", "--json", **NULL)).out)
    [finding] = [found for found in report["findings"] if found["what"] == "pauses"]
    assert (finding["grade"], report["safe"]) == ("warning", True)
    assert "topic mail.*" in finding["detail"]
    command = finding["cure"].partition("  #")[0].replace("'", "").split()[1:]
    assert (await outbox(database, *command)).code == 0
    assert (await status(database))["pauses"] == []


async def test_the_first_line_says_what_a_worker_works_on(database: str, tmp_path: Path) -> None:
    with worker_process(tmp_path, "w", DATABASE_URL=database, OUTBOX_MODE="poll", **NULL) as worker:
        [line] = await worker.logged("worker started")
    assert (line["worker"], line["schema"], line["mode"], line["http_port"]) == ("w", "outbox", "poll", 0)
    assert "127.0.0.1" in line["database"]
    assert line["sink"] == NULL["OUTBOX_SINK"]


async def test_a_hold_that_lasts_is_reported_again_and_counted_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting, "FIRST_S", 0.2)
    sink, port = FakeSink(), free_port()
    sink.available = False
    async with running(database, sink, http_port=port) as relay:
        await relay.log.wait_for(Held, lambda event: event.held_s > 0.2)
        samples = await scrape(port)
        assert samples["outbox_holds_total"][()] == 1
        assert samples["outbox_hold_seconds_total"][()] > 0.2


async def test_a_database_that_stays_away_is_reported_again_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "FIRST_S", 0.2)
    port = free_port()
    async with running("postgresql://postgres@127.0.0.1:1/x", wait=False, http_port=port) as relay:
        await relay.log.wait_for(DatabaseLost, lambda event: event.lost_s > 0.2)
        assert (await scrape(port))["outbox_database_losses_total"][()] == 1
