"""The relay's answers to everything a sink can say, on a real database."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import anyio
import pytest

from outbox.model.events import (
    Buried,
    Claimed,
    DatabaseLost,
    DeliveryStuck,
    Held,
    PaceChanged,
    Released,
    Resumed,
    Retried,
    SettleRefused,
)
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected, Throttled, Unavailable, Unclear, Unknown
from tests.support.eventually import eventually
from tests.support.probing import free_port, get
from tests.support.running import counts, enqueue, fetch, running
from tests.support.sinks import FakeSink, deliver_all
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(60)


def failing_first(times: int, outcome: Outcome) -> FakeSink:
    """A sink that answers every message's first deliveries with an outcome, and then takes it."""
    seen: Counter[object] = Counter()

    def answer(message: Message) -> Outcome:
        seen[message.message_id] += 1
        return outcome if seen[message.message_id] <= times else deliver_all(message)

    return FakeSink(answer)


async def test_delivered_message_is_in_the_history_with_its_workflow(database: str) -> None:
    [message_id] = await enqueue(database)
    async with running(database) as relay:
        await relay.wait_completed(1)
    [row] = await fetch(database, "select * from outbox.message_life")
    assert (row["message_id"], row["status"]) == (message_id, "completed")
    assert (row["workflow_id"], row["run_id"], row["worker"]) == (f"workflow-{message_id}", "run-1", "worker-1")


async def test_backlog_is_delivered_in_order_and_each_message_once(database: str) -> None:
    ids = await enqueue(database, 3000)
    async with running(database, concurrency=1) as relay:
        await relay.wait_completed(3000, timeout_s=40)
    assert relay.sink.ids == ids
    assert await counts(database) == {"message": 0, "history": 3000, "dead_letter": 0}


async def test_deliveries_in_flight_never_exceed_the_concurrency(database: str) -> None:
    await enqueue(database, 100)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, concurrency=7) as relay:
        await sink.wait_received(7)
        sink.unblock()
        await relay.wait_completed(100)
    assert sink.most_in_flight == 7


async def test_claims_are_bounded_by_concurrency_and_prefetch(database: str) -> None:
    await enqueue(database, 100)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, concurrency=4, prefetch=6) as relay:
        await sink.wait_received(4)
        assert sum(len(event.messages) for event in relay.log.of(Claimed)) <= 10


async def test_poison_message_is_a_dead_letter_at_once_and_delays_no_other(database: str) -> None:
    [poison] = await enqueue(database, topic="poison")
    others = await enqueue(database, 50)
    sink = FakeSink(lambda m: Rejected("BAD", "never") if m.topic == "poison" else deliver_all(m))
    async with running(database, sink, concurrency=1) as relay:
        buried = await relay.wait_buried()
        await relay.wait_completed(50)
    assert (buried.message.message_id, buried.reason) == (poison, "rejected")
    assert relay.completed == others
    assert relay.sink.ids.count(poison) == 1


async def test_failing_message_is_buried_after_its_attempts_with_every_error(database: str) -> None:
    await enqueue(database)
    async with running(database, FakeSink(lambda _: Failed("NOPE", "not yet")), max_attempts=3) as relay:
        buried = await relay.wait_buried()
    assert buried.reason == "exhausted"
    assert [event.counted for event in relay.log.of(Retried)] == [True, True]
    [row] = await fetch(database, "select attempts, json_array_length(errors::json) as errors from outbox.dead_letter")
    assert tuple(row) == (3, 3)


async def test_message_that_fails_twice_is_completed_on_its_third_attempt(database: str) -> None:
    await enqueue(database)
    async with running(database, failing_first(2, Failed("NOPE", "not yet"))) as relay:
        await relay.wait_completed(1)
    [row] = await fetch(database, "select attempts from outbox.history")
    assert row["attempts"] == 2


@pytest.mark.parametrize("outcome", [Unknown("LOST", "no answer"), Throttled("BUSY", "one id", scope="message")])
async def test_what_is_not_the_messages_fault_burns_no_attempt(database: str, outcome: Outcome) -> None:
    await enqueue(database)
    async with running(database, failing_first(5, outcome), max_attempts=2) as relay:
        await relay.wait_completed(1)
    assert [event.counted for event in relay.log.of(Retried)] == [False] * 5
    [row] = await fetch(database, "select attempts from outbox.history")
    assert row["attempts"] == 0


async def test_sink_that_raises_fails_the_message_and_not_the_relay(database: str) -> None:
    def answer(message: Message) -> Outcome:
        if message.topic == "bug":
            raise ZeroDivisionError("a fault of the sink")
        return deliver_all(message)

    await enqueue(database, topic="bug")
    await enqueue(database, 10)
    async with running(database, FakeSink(answer), max_attempts=2) as relay:
        buried = await relay.wait_buried()
        await relay.wait_completed(10)
    assert isinstance(buried.outcome, Failed)
    assert buried.outcome.kind == "ZeroDivisionError"


async def test_error_text_that_the_database_cannot_store_is_made_fit(database: str) -> None:
    await enqueue(database)
    async with running(database, FakeSink(lambda _: Rejected("BAD", "a\0b\ud800" + "x" * 100_000))) as relay:
        await relay.wait_buried()
    [row] = await fetch(database, "select errors::text as errors from outbox.dead_letter")
    assert "a\N{REPLACEMENT CHARACTER}b?" in row["errors"]
    assert len(row["errors"]) < 3000


async def test_worker_holds_before_the_first_message_if_the_sink_cannot_deliver(database: str) -> None:
    sink = FakeSink()
    sink.available = False
    async with running(database, sink) as relay:
        await relay.log.wait_for(Held)
        assert not sink.received
        sink.available = True
        await relay.log.wait_for(Resumed)
        await enqueue(database)
        await relay.wait_completed(1)


async def test_unavailable_sink_holds_the_relay_and_no_attempt_is_burnt(database: str) -> None:
    sink = FakeSink()
    sink.available = False
    await enqueue(database, 200)
    async with running(database, sink, concurrency=8, max_attempts=1) as relay:
        await relay.log.wait_for(Held)
        claimed = sum(len(event.messages) for event in relay.log.of(Claimed))
        await relay.log.wait_until(lambda: sum(len(e.messages) for e in relay.log.of(Released)) >= claimed or None)
        asked, claims = len(sink.received), len(relay.log.of(Claimed))
        await sink.wait_until(lambda: sink.probes >= 5)
        assert len(sink.received) == asked, "nothing is delivered while the relay holds"
        assert len(relay.log.of(Claimed)) == claims, "nothing is claimed while the relay holds"
        rows = await fetch(
            database,
            "select max(attempts + deliveries), bool_or(lease_token is not null) from outbox.message",
        )
        assert tuple(rows[0]) == (0, False)
        sink.available = True
        returned_s = monotonic()
        await relay.log.wait_for(Resumed)
        await relay.wait_completed(1)
        assert monotonic() - returned_s < 10.0
        await relay.wait_completed(200)
    assert await counts(database) == {"message": 0, "history": 200, "dead_letter": 0}


async def test_sink_that_flaps_is_held_again_and_loses_nothing(database: str) -> None:
    sink = FakeSink()
    async with running(database, sink, concurrency=4) as relay:
        for round_ in range(1, 4):
            sink.available = False
            await enqueue(database, 300)
            await relay.log.wait_until(lambda n=round_: len(relay.log.of(Held)) >= n or None)
            sink.available = True
            await enqueue(database, 10)
            await relay.log.wait_until(lambda n=round_: len(relay.log.of(Resumed)) >= n or None)
        await relay.wait_completed(930)
    assert (await counts(database))["history"] == 930
    assert len(set(relay.completed)) == 930


async def test_messages_that_a_well_sink_refuses_end_as_dead_letters_and_stop_no_other(database: str) -> None:
    """For example those with an operation or namespace that these credentials may not use."""
    await enqueue(database, 30, topic="refused")
    others = await enqueue(database, 40)
    refusal = Unavailable("PERMISSION_DENIED", "not for you", "refused")
    sink = FakeSink(lambda m: refusal if m.topic == "refused" else deliver_all(m))
    async with running(database, sink, concurrency=4, max_attempts=3) as relay:
        await relay.wait_completed(40)
        await relay.log.wait_until(lambda: len(relay.log.of(Buried)) >= 30 or None)
        assert not relay.log.of(Held)
        assert set(relay.completed) == set(others)
    assert await counts(database) == {"message": 0, "history": 40, "dead_letter": 30}
    [dead] = await fetch(database, "select distinct attempts, reason from outbox.dead_letter")
    assert tuple(dead) == (3, "exhausted")


@pytest.mark.parametrize("meaning", ["unreached", "unanswered"])
async def test_messages_for_which_a_well_sink_has_no_answer_wait_and_stop_no_other(database: str, meaning: str) -> None:
    """For example those of one shard that is moving. They are never given up."""
    lonely = await enqueue(database, 3, topic="lonely")
    others = await enqueue(database, 50)
    no_answer = Unavailable("DOWN", "for you", meaning)
    sink = FakeSink(lambda m: no_answer if m.topic == "lonely" else deliver_all(m))
    async with running(database, sink, concurrency=1, max_attempts=1) as relay:
        await relay.wait_completed(50)
        await relay.log.wait_until(lambda: len(relay.log.of(Retried)) >= 9 or None)
        assert not relay.log.of(Held)
        assert relay.completed == others
    rows = await fetch(database, "select message_id, attempts, errors -> -1 ->> 'kind' as kind from outbox.message")
    assert {tuple(row) for row in rows} == {(message_id, 0, "DOWN") for message_id in lonely}


async def test_the_next_of_a_key_follows_a_message_that_a_probe_has_buried(database: str) -> None:
    """The probe ends while all slots sleep, so something must wake one for the next message."""
    await fetch(database, "select outbox.enqueue(n::text, key => 'k') from generate_series(1, 3) n")
    refused = Unavailable("REFUSED", "not this one", "refused")
    sink = FakeSink(lambda m: refused if m.topic == "1" else deliver_all(m))
    async with running(database, sink, max_attempts=1) as relay:
        await relay.wait_completed(2)
        assert [m.topic for m in sink.received] == ["1", "2", "3"]
        assert relay.log.of(Buried)


async def test_a_probe_that_says_nothing_leaves_the_word_to_other_deliveries(database: str) -> None:
    """Credentials that may start workflows and may not describe the namespace say nothing by a probe."""

    class Reticent(FakeSink):
        async def probe(self) -> Unavailable | Unclear | None:
            await super().probe()
            return Unclear("PERMISSION_DENIED", "you may not describe the namespace")

    refusal = Unavailable("PERMISSION_DENIED", "not for you", "refused")
    all_refused = True
    sink = Reticent(lambda m: refusal if all_refused or m.topic == "refused" else deliver_all(m))
    await enqueue(database, topic="refused")
    async with running(database, sink, max_attempts=1) as relay:
        await relay.log.wait_until(lambda: len(relay.log.of(Held)) >= 3 or None)
        assert not relay.log.of(Buried), "it may be the credentials that are wrong"
        all_refused = False

        async def buried() -> int:
            await enqueue(database)
            return len(relay.log.of(Buried))

        await eventually(buried, lambda n: n == 1)


async def test_a_message_that_may_have_reached_a_dying_sink_counts_as_tried(database: str) -> None:
    """Its next delivery must know that it is a repeat. One that was never sent leaves no trace."""
    sent, unsent = await enqueue(database, topic="sent"), await enqueue(database, topic="unsent")

    def answer(message: Message) -> Outcome:
        sink.available = False
        return Unavailable("UNAVAILABLE", "gone", "unanswered" if message.topic == "sent" else "unreached")

    sink = FakeSink(answer)
    sink.block()
    async with running(database, sink) as relay:
        await sink.wait_received(2)
        sink.unblock()
        await relay.log.wait_for(Held)

        async def rows() -> set[tuple[object, ...]]:
            found = await fetch(
                database,
                "select message_id, attempts, deliveries, jsonb_array_length(errors) from outbox.message "
                "where lease_token is null",
            )
            return {tuple(row) for row in found}

        assert await eventually(rows, lambda found: len(found) == 2) == {(sent[0], 0, 0, 1), (unsent[0], 0, 0, 0)}
        sink.answer, sink.available = deliver_all, True
        await relay.wait_completed(2)
    assert {(m.topic, m.setbacks) for m in sink.received[2:]} == {("sent", 1), ("unsent", 0)}


async def test_text_of_an_error_that_a_sink_raises_is_nowhere_written_down(database: str) -> None:
    def leaks(message: Message) -> Outcome:
        raise RuntimeError(f"cannot encode {message.payload}")

    await enqueue(database, payload='{"card": "4111-1111"}')
    async with running(database, FakeSink(leaks), max_attempts=1) as relay:
        buried = await relay.wait_buried()
    assert isinstance(buried.outcome, Failed)
    assert buried.outcome.kind == "RuntimeError"
    assert "tests.worker.test_relay, leaks, line" in buried.outcome.detail
    [row] = await fetch(database, "select errors::text from outbox.dead_letter")
    assert "4111" not in row["errors"] + buried.outcome.detail


async def test_cancellation_that_gets_loose_in_a_probe_ends_nothing(database: str) -> None:
    class Loose(FakeSink):
        async def probe(self) -> Unavailable | Unclear | None:
            answer = await super().probe()
            if self.probes < 3:
                raise anyio.get_cancelled_exc_class()
            return answer

    sink = Loose()
    sink.available = False
    await enqueue(database)
    async with running(database, sink) as relay:
        await relay.log.wait_for(Held)
        sink.available = True
        await relay.wait_completed(1)
    assert sink.probes >= 3


async def test_statement_that_the_database_refuses_loses_no_settlement(database: str) -> None:
    """A missing right or table is no fault of the row: it is repaired, and then the settlement is written."""
    async with running(database) as relay, connected(database) as admin:
        await admin.execute("alter table outbox.history rename to gone")
        await enqueue(database)
        lost = await relay.log.wait_for(DatabaseLost)
        assert "history" in lost.error
        await admin.execute("alter table outbox.gone rename to history")
        await relay.wait_completed(1)
    assert not relay.log.of(SettleRefused)


async def test_error_text_that_no_json_column_takes_does_not_end_a_holding_worker(database: str) -> None:
    down = Unavailable("DOWN", "nul \0, surrogate \udc80")

    class Down(FakeSink):
        async def probe(self) -> Unavailable | Unclear | None:
            return down

    sink = Down(lambda _: down)

    port = free_port()
    async with running(database, sink, http_port=port) as relay, connected(database) as reader:
        await enqueue(database)
        await relay.log.wait_for(Held)
        assert (await get(port, "/readyz")).parts["sink"].startswith("DOWN: nul")
        relay.worker.state.parts.selection._changed()  # a heartbeat is due
        state = "select detail ->> 'held_by' from outbox.worker where state = 'holding'"

        async def held_by() -> str | None:
            return await reader.fetchval(state)

        await eventually(held_by, lambda text: text is not None)
        await relay.stop()


async def test_throttling_slows_the_relay_and_burns_no_attempt(database: str) -> None:
    refusals = 5

    def answer(message: Message) -> Outcome:
        nonlocal refusals
        refusals -= 1
        return Throttled("BUSY", "too many") if refusals >= 0 else deliver_all(message)

    await enqueue(database, 30)
    async with running(database, FakeSink(answer), max_attempts=1) as relay:
        slowed = await relay.log.wait_for(PaceChanged)
        began_s = monotonic()
        await relay.wait_completed(30)
    assert slowed.rate is not None
    assert monotonic() - began_s > 20 / slowed.rate, "thirty messages do not go faster than the pace allows"
    assert not relay.log.of(Retried)
    rows = await fetch(database, "select max(attempts), max(deliveries) from outbox.history")
    assert tuple(rows[0]) == (0, 1)


async def test_stuck_delivery_is_given_up_and_tried_again_under_the_same_id(database: str) -> None:
    [message_id] = await enqueue(database)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, deliver_timeout_s=0.2) as relay:
        stuck = await relay.log.wait_for(DeliveryStuck)
        assert stuck.after_s >= 1.2
        sink.unblock()
        await relay.wait_completed(1)
    assert sink.ids == [message_id, message_id]
    [row] = await fetch(database, "select attempts from outbox.history")
    assert row["attempts"] == 0


async def test_suspect_is_delivered_with_nothing_else_in_flight(database: str) -> None:
    await enqueue(database, 50)
    await enqueue(database, topic="suspect")
    await enqueue(database, 50)
    await fetch(database, "update outbox.message set deliveries = 2 where topic = 'suspect' returning 1")
    company: list[int] = []

    def answer(message: Message) -> Outcome:
        if message.topic == "suspect":
            company.append(sink.in_flight)
        return deliver_all(message)

    sink = FakeSink(answer)
    async with running(database, sink) as relay:
        await relay.wait_completed(101)
    assert company == [1]
    deliveries = "select deliveries, count(*) from outbox.history group by deliveries order by deliveries"
    # Messages claimed with it went back uncounted.
    assert [tuple(row) for row in await fetch(database, deliveries)] == [(1, 100), (3, 1)]


async def test_suspects_in_a_row_are_delivered_one_by_one(database: str) -> None:
    ids = await enqueue(database, 20)
    await fetch(database, "update outbox.message set deliveries = 2 returning 1")
    async with running(database, FakeSink()) as relay:
        await relay.wait_completed(20)
    assert relay.sink.ids == ids
    assert relay.sink.most_in_flight == 1


async def test_killer_is_quarantined_and_the_rest_goes_on(database: str) -> None:
    await enqueue(database, topic="killer")
    await enqueue(database, 20)
    await fetch(database, "update outbox.message set deliveries = 5 where topic = 'killer' returning 1")
    async with running(database) as relay:
        buried = await relay.wait_buried()
        await relay.wait_completed(20)
    assert (buried.reason, buried.message.topic) == ("quarantined", "killer")
    assert all(message.topic != "killer" for message in relay.sink.received)


async def test_two_workers_share_a_backlog_without_doubles(database: str) -> None:
    await enqueue(database, 2000)
    sink = FakeSink()
    async with running(database, sink, worker_name="a"), running(database, sink, worker_name="b"):
        await sink.wait_until(lambda: len(sink.answered) >= 2000)
    assert len(sink.ids) == len(set(sink.ids)) == 2000
    assert await counts(database) == {"message": 0, "history": 2000, "dead_letter": 0}


async def test_history_may_be_off(database: str) -> None:
    await enqueue(database, 10)
    async with running(database, history=False) as relay:
        await relay.wait_completed(10)
    assert await counts(database) == {"message": 0, "history": 0, "dead_letter": 0}


async def test_duplicate_is_noted_in_the_history(database: str) -> None:
    await enqueue(database)
    async with running(database, FakeSink(lambda _: Delivered("w", "r", duplicate=True))) as relay:
        await relay.wait_completed(1)
    [row] = await fetch(database, "select outcome from outbox.history")
    assert row["outcome"] == "duplicate"
