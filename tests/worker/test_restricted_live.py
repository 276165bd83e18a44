"""Restricted messages with real workers: order, turns and limits in what is delivered, pauses within a second, and the commands."""

from __future__ import annotations

from collections import Counter, defaultdict
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from outbox.model.events import Buried, Claimed, Released, SourceReady
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.running import counts, fetch, running
from tests.support.sinks import FakeSink, deliver_all
from tests.support.stalls import stalls

pytestmark = pytest.mark.timeout(90)
FILL = "select outbox.enqueue('t', to_json(n), key => 'k' || n % $2) from generate_series(1, $1) n order by n"


def by_key(messages: list[Message]) -> dict[str | None, list[int]]:
    keys: dict[str | None, list[int]] = defaultdict(list)
    for message in messages:
        keys[message.key].append(message.seq)
    return keys


@pytest.mark.parametrize("workers", [1, 2])
async def test_keys_are_delivered_in_order_and_one_at_a_time(database: str, workers: int) -> None:
    await fetch(database, FILL, 600, 20)
    in_flight: Counter[str | None] = Counter()

    class Watching(FakeSink):
        async def deliver(self, message: Message) -> Outcome:
            in_flight[message.key] += 1
            assert in_flight[message.key] == 1
            outcome = await super().deliver(message)
            in_flight[message.key] -= 1
            return outcome

    sink = Watching()
    async with running(database, sink, worker_name="one") as first:
        if workers == 2:
            async with running(database, sink, worker_name="two"):
                await eventually(lambda: counts(database), lambda n: n["history"] == 600)
        else:
            await first.wait_completed(600)
    assert len(sink.received) == 600
    assert all(seqs == sorted(seqs) for seqs in by_key(sink.received).values())


async def test_messages_claimed_together_wait_for_one_that_is_tried_again(database: str) -> None:
    """If the second message of a series fails once, no later one is delivered before it."""
    await fetch(database, FILL, 20, 1)
    failed: list[str] = []

    def fail_once(message: Message) -> Outcome:
        if message.seq % 5 == 0 and message.payload not in failed:
            failed.append(str(message.payload))
            return Failed("K", "d")
        return deliver_all(message)

    sink = FakeSink(fail_once)
    async with running(database, sink) as relay:
        await relay.wait_completed(20)
    delivered = [message.seq for message, outcome in sink.answered if isinstance(outcome, Delivered)]
    assert len(failed) == 4
    assert delivered == sorted(delivered)
    assert "order" in {released.why for released in relay.log.of(Released)}
    assert all(message.attempts == 0 for message in sink.received if message.payload not in failed)


async def test_rest_of_a_series_is_given_back_when_it_is_paused_meanwhile(database: str) -> None:
    await fetch(database, FILL, 2, 1)
    sink = FakeSink()
    sink.block()
    async with running(database, sink, concurrency=2) as relay:
        await sink.wait_received(1)
        await fetch(database, "select outbox.enqueue('t') from generate_series(1, 2)")
        await relay.log.wait_until(lambda: sum(len(c.messages) for c in relay.log.of(Claimed)) == 4, what="claims")
        await fetch(database, "select outbox.pause()")
        released = await relay.log.wait_for(
            Released
        )  # it waited for a slot, and its return shows that the worker knows
        assert ([message.key for message in released.messages], released.why) == ([None], "pause")
        sink.unblock()
        await relay.log.wait_until(lambda: len(relay.log.of(Released)) == 2, what="the series released")
    released = relay.log.of(Released)[1]
    assert ([message.key for message in released.messages], released.why) == (["k0"], "pause")
    assert [message.payload for message in sink.received if message.key] == ["1"]


async def test_rest_of_a_series_is_given_back_when_the_worker_stops(database: str) -> None:
    await fetch(database, FILL, 6, 1)
    sink = FakeSink()
    sink.block()
    async with running(database, sink) as relay:
        await sink.wait_received(1)
        relay.worker.stop()
        sink.unblock()
        await relay.wait_ended()
    assert [(len(released.messages), released.why) for released in relay.log.of(Released)] == [(5, "drain")]
    rows = await fetch(database, "select deliveries, lease_token from outbox.message")
    assert [tuple(row) for row in rows] == [(0, None)] * 5


async def test_successor_of_a_delivered_message_comes_at_once(database: str) -> None:
    async with running(database, poll_interval_s=3600.0) as relay:
        await relay.log.wait_for(SourceReady)
        began_s = monotonic()
        await fetch(database, FILL, 50, 1)
        await relay.wait_completed(50)
        assert monotonic() - began_s < 10.0
    assert [m.seq for m in relay.sink.received] == sorted(m.seq for m in relay.sink.received)


async def test_messages_after_those_of_a_drained_worker_wake_the_others(database: str) -> None:
    """The message that the drain finished had one behind it, of which only the drained worker knew."""
    sink = FakeSink()
    sink.block()
    async with running(database, poll_interval_s=3600.0, worker_name="stays") as stays:
        await stays.log.wait_for(SourceReady)
        async with running(database, sink, poll_interval_s=3600.0, worker_name="leaves") as leaves:
            await leaves.log.wait_for(SourceReady)
            stays.sink.block()
            await fetch(database, FILL, 40, 2)  # each of the two keys' heads is with one of the workers
            await eventually(lambda: counts(database), lambda _: len(sink.received) + len(stays.sink.received) == 2)
            leaves.worker.stop()
            sink.unblock()
            await leaves.wait_ended()
        stays.sink.unblock()
        await eventually(lambda: counts(database), lambda n: n["history"] == 40)


@pytest.mark.parametrize(("policy", "buried"), [("bury", True), ("wait", False)])
@pytest.mark.parametrize("outcome", [Failed("K", "d"), Rejected("K", "d")], ids=["failed", "rejected"])
async def test_head_that_fails_for_good_is_buried_or_waited_for(
    database: str, policy: str, buried: bool, outcome: Outcome
) -> None:
    await fetch(database, FILL, 2, 1)
    sink = FakeSink(lambda m: outcome if m.payload == "1" else deliver_all(m))
    async with running(database, sink, max_attempts=2, keyed_failure=policy) as relay:
        if buried:
            await relay.wait_buried()
            await relay.wait_completed(1)
        else:
            await sink.wait_until(lambda: len(sink.received) >= 4)
            assert {m.payload for m in sink.received} == {"1"}
            rows = await fetch(database, "select attempts from outbox.message order by seq")
            assert [min(3, attempts) for [attempts] in rows] == [3, 0]
            assert not relay.log.of(Buried)
            sink.answer = deliver_all
            await relay.wait_completed(2)


async def test_small_tenant_is_through_in_twice_the_time_that_it_takes_alone(database: str) -> None:
    """Against another with a hundred times as much. Its share is one half, so twice the time is what fairness gives."""

    async def through(*, beside: int) -> float:
        await fetch(database, "truncate outbox.message, outbox.history")
        await fetch(database, "select outbox.enqueue('t', tenant => 'big') from generate_series(1, $1)", beside)
        await fetch(database, "select outbox.enqueue('t', tenant => 'small') from generate_series(1, 200)")
        sink = FakeSink()
        async with running(database, sink, concurrency=4, history=False) as relay:
            small = 0

            def all_through() -> bool:
                nonlocal small
                small = sum(message.tenant == "small" for message, _ in sink.answered)
                return small == 200

            await sink.wait_until(all_through, timeout_s=40)
            before = [message.tenant for message, _ in sink.answered]
            await relay.stop()
        return before.count("big") / 200

    assert await through(beside=0) == 0
    assert await through(beside=20_000) <= 2.5, "deliveries to the big tenant for each to the small one"


async def test_pause_stops_what_is_claimed_and_not_begun_within_a_second(database: str) -> None:
    sink = FakeSink()
    sink.block()
    async with running(database, sink, concurrency=2, mode="poll") as relay:
        await fetch(database, "select outbox.enqueue('t') from generate_series(1, 50)")
        await sink.wait_received(2)
        async with stalls() as seen:
            await fetch(database, "select outbox.pause(topic => 't')")
            paused_s = monotonic()
            released = await relay.log.wait_for(Released)
            assert monotonic() - paused_s < 1.5 + seen.lost_s
        assert released.why == "pause"
        sink.unblock()
        await relay.wait_completed(2)
        [row] = await fetch(database, "select count(*) from outbox.message where lease_token is not null")
        assert row[0] == 0
        assert len(sink.received) == 2
        await fetch(database, "select outbox.resume(topic => 't')")
        await relay.wait_completed(50)
    assert len(sink.received) == 50


async def test_pause_of_everything_is_kept_by_workers_that_start_later(database: str) -> None:
    await fetch(database, "select outbox.pause()")
    await fetch(database, FILL, 10, 2)
    await fetch(database, "select outbox.enqueue('t')")
    async with running(database) as relay:
        await relay.log.wait_for(SourceReady)
        assert relay.sink.received == []
        await fetch(database, "select outbox.resume()")
        await relay.wait_completed(11)


async def test_expired_messages_are_buried_or_discarded_and_never_delivered(database: str) -> None:
    late = "expires_at => now() - interval '1 second'"
    await fetch(
        database, f"select outbox.enqueue('bury', {late}), outbox.enqueue('forget', {late}, on_expiry => 'discard')"
    )
    async with running(database) as relay:
        await relay.log.wait_until(lambda: len(relay.log.of(Buried)) == 2 or None)
    assert relay.sink.received == []
    assert await counts(database) == {"message": 0, "history": 1, "dead_letter": 1}
    rows = await fetch(database, "select topic, status, last_error from outbox.message_life order by topic")
    assert [tuple(row) for row in rows] == [
        ("bury", "failed", "its turn came after expires_at"),
        ("forget", "discarded", None),
    ]


async def test_limited_topic_is_delivered_at_its_rate_by_two_workers(database: str) -> None:
    await fetch(database, "select outbox.limit_topic('t', 20, 5)")
    await fetch(database, "select outbox.enqueue('t') from generate_series(1, 45)")
    sink = FakeSink()
    began_s = monotonic()
    async with running(database, sink, worker_name="one"), running(database, sink, worker_name="two"):
        await sink.wait_received(45)
        assert monotonic() - began_s > 40 / 20 - 0.1
    [row] = await fetch(database, "select count(*) from outbox.history")
    assert row[0] <= 45


# The commands


async def test_commands_pause_limit_and_resume_and_status_shows_it(database: str) -> None:
    async def said(*arguments: str, code: int = 0) -> str:
        done = await outbox(database, *arguments)
        assert done.code == code, done.err
        return done.out + done.err

    assert await said("pause", "--topic", "mail.*") == "paused: topic mail.*\n"
    assert await said("pause", "--key", "k1") == "paused: key k1\n"
    assert await said("limit", "sms", "2.5", "--burst", "4") == "limited: sms to 2.5 a second\n"
    ids: list[UUID] = [row[0] for row in await fetch(database, FILL, 3, 1)]
    await fetch(
        database, 'update outbox.message set errors = \'[{"detail": "no such queue"}]\', attempts = 3 where seq = 1'
    )
    async with running(
        database, FakeSink(lambda _: Failed("K", "no such queue")), retry_base_s=300.0, retry_cap_s=300.0
    ):
        await eventually(
            lambda: fetch(database, "select from outbox.message where due_at = 'infinity'"), lambda rows: len(rows) == 2
        )
    status = await said("status")
    assert "paused: topic mail.*, for" in status
    assert "paused: key k1, for" in status
    assert "limited: sms, 2.5 a second, 4 at once" in status
    assert f"key k0: 2 wait for {ids[0]}, which failed 4 times: no such queue" in " ".join(status.split())
    assert await said("resume", "--topic", "mail.*") == "resumed: topic mail.*\n"
    assert "not paused: topic mail.*" in await said("resume", "--topic", "mail.*", code=2)
    assert await said("limit", "sms", "--off") == "not limited any more: sms\n"
    again = "outbox: not limited: sms; `outbox status` shows what is\n"
    assert await said("limit", "sms", "--off", code=2) == again


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("pause", "--topic", "a", "--key", "b"), "give --topic or --key, not both"),
        (("pause", "--topic", "a*"), "use an exact topic, or prefix.*"),
        (("limit", "a"), "give a rate in messages a second, or --off to lift the limit"),
        (("limit", "a", "0"), "rate is 0 messages a second, it must lie between 0.0001 and 100000"),
    ],
)
async def test_bad_rule_is_one_line(database: str, arguments: tuple[str, ...], fault: str) -> None:
    done: Any = await outbox(database, *arguments)
    assert done.code in (1, 2)
    assert fault in done.err
    assert len(done.err.splitlines()) == 1
