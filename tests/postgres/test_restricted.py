"""What a message can ask for, claim by claim on the test's clock: order, turns, limits, pauses, expiry, windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import anyio
import asyncpg
import pytest

from outbox.model.message import Message
from outbox.model.sink import Delivered
from outbox.store.dead_letters import DeadLetters
from outbox.store.messages import Burial, Retry
from tests.support.sql import Clock, blocked_on, clock, connected


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    async with clock(database) as worker:
        worker.pass_s(3600)  # what the producers' clock stamps is due by the test's
        yield worker


async def enqueue(worker: Clock, topic: str = "t", **arguments: Any) -> UUID:
    names = "".join(f", {name} => ${n}" for n, name in enumerate(arguments, start=2))
    return await worker.pool.fetchval(f"select outbox.enqueue($1{names})", topic, *arguments.values())


async def complete(worker: Clock, *messages: Message) -> None:
    assert await worker.store.complete([(message, Delivered()) for message in messages]) == set()


async def retry(worker: Clock, message: Message, delay_s: float) -> None:
    await worker.store.retry([Retry(message, delay_s, counted=True, kind="K", detail="d")])


def topics(messages: list[Message]) -> list[str]:
    return [message.topic for message in messages]


# Order


async def test_of_a_key_one_is_in_flight_and_the_next_comes_when_it_has_left(worker: Clock) -> None:
    for n in range(3):
        for key in ("a", "b"):
            await enqueue(worker, f"{key}{n}", key=key)
    for n in range(3):
        messages = await worker.claim()
        assert sorted(topics(messages)) == [f"a{n}", f"b{n}"]
        assert await worker.claim() == []
        await complete(worker, *messages)
    assert await worker.claim() == []


async def test_messages_behind_a_head_are_parked_in_a_tenants_lane(worker: Clock) -> None:
    """A claim looks at each once, however many wait: a hot key costs the other keys of its tenant no second look."""
    for n in range(50):
        await enqueue(worker, f"{n}", key="hot", tenant="t")
    assert topics(await worker.claim(100)) == ["0"]
    assert await worker.pool.fetchval("select count(*) from outbox.message where ready and restricted") == 0


async def test_messages_behind_a_head_are_not_parked_if_they_block_no_other(worker: Clock) -> None:
    """A lane that a key has to itself is passed over while one of the key is in flight: nothing is written."""
    for n in range(50):
        await enqueue(worker, f"{n}", key="hot")
    places = await worker.pool.fetch("select ctid, xmax from outbox.message where topic <> '0' order by seq")
    assert topics(await worker.claim(100)) == ["0"]
    await enqueue(worker, "other", key="other")
    worker.pass_s(5)
    batch = await worker.store.claim_restricted(100, lease_s=60, worker_id=1, suspect_after=2)
    assert topics(batch.messages) == ["other"]
    assert await worker.store.claim_restricted(100, lease_s=60, worker_id=1, suspect_after=2) == batch._replace(
        messages=[], claimed_s=ANY, expires_s=ANY, more=False, next_due_s=None, lane=ANY
    )
    waiting = "select ctid, xmax from outbox.message where topic not in ('0', 'other') order by seq"
    assert await worker.pool.fetch(waiting) == places


@pytest.mark.parametrize("tenant", [None, "t"])
async def test_messages_of_a_key_are_leased_together_if_nothing_is_between_them(
    worker: Clock, tenant: str | None
) -> None:
    for n in range(8):
        await enqueue(worker, f"{n}", key="k", tenant=tenant)
    series = await worker.claim(series=3)
    assert topics(series) == ["0", "1", "2"]
    assert await worker.claim(series=3) == []
    await complete(worker, *series[:2])
    assert await worker.claim(series=3) == [], "the last of a series keeps the key"
    await complete(worker, series[2])
    series = await worker.claim(series=3)
    assert topics(series) == ["3", "4", "5"]
    await retry(worker, series[0], 10)
    await worker.store.release(series[1:])
    assert await worker.claim(series=3) == [], "the first of the key is waited for"
    worker.pass_s(10)
    assert topics(await worker.claim(series=3)) == ["3", "4", "5"]
    worker.pass_s(61)
    assert topics(await worker.claim(series=8)) == ["3", "4", "5", "6", "7"], "an abandoned series is taken up whole"


@pytest.mark.parametrize("between", ["scheduled", "paused", "limited", "suspect", "locked"])
async def test_series_ends_before_a_message_that_may_not_go_with_it(worker: Clock, database: str, between: str) -> None:
    for n in range(4):
        await enqueue(worker, f"{n}", key="k")
    [third] = await worker.pool.fetchrow("select message_id from outbox.message where topic = '2'")
    async with connected(database) as other, other.transaction():
        match between:
            case "scheduled":
                await worker.pool.execute(
                    "update outbox.message set due_at = due_at + interval '1 hour' where topic = '2'"
                )
            case "paused":
                await worker.pool.execute("select outbox.pause(topic => '2')")
            case "limited":
                await worker.pool.execute("select outbox.limit_topic('2', 100)")
            case "suspect":
                await worker.pool.execute("update outbox.message set deliveries = 2 where topic = '2'")
            case _:
                await other.execute("select from outbox.message where message_id = $1 for update", third)
        series = await worker.claim(series=8)
        # A suspect goes before all others, once nothing of its key is before it.
        assert topics(series) == ["0", "1"]
        await complete(worker, *series)
    assert topics(await worker.claim(series=8))[:1] == {"scheduled": [], "paused": []}.get(between, ["2"])


async def test_only_the_last_message_of_a_series_calls_the_next_one(worker: Clock) -> None:
    """In any order of leaving: messages that wait behind the series are called by its end."""
    for n in range(3):
        await enqueue(worker, f"{n}", key="k", tenant="t")
    series = await worker.claim(series=3)
    await enqueue(worker, "3", key="k", tenant="t")
    worker.pass_s(5)
    assert await worker.claim(series=3) == []  # parked behind the last of the series
    asleep = "select count(*) from outbox.message where due_at = 'infinity'"
    assert await worker.pool.fetchval(asleep) == 1
    await complete(worker, series[1])
    assert await worker.pool.fetchval(asleep) == 1
    await complete(worker, series[2])
    assert await worker.pool.fetchval(asleep) == 0
    assert await worker.claim(series=3) == [], "the first has not left yet"
    await complete(worker, series[0])
    assert topics(await worker.claim(series=3)) == ["3"]


async def test_failing_head_blocks_its_key_and_no_other(worker: Clock) -> None:
    for topic, key in (("a0", "a"), ("a1", "a"), ("b0", "b"), ("b1", "b")):
        await enqueue(worker, topic, key=key)
    head, other = sorted(await worker.claim(), key=lambda m: m.topic)
    await retry(worker, head, 60)
    await complete(worker, other)
    assert topics(await worker.claim()) == ["b1"]
    worker.pass_s(61)
    [again] = [m for m in await worker.claim() if m.key == "a"]
    assert (again.topic, again.attempts) == ("a0", 1)
    await complete(worker, again)
    assert topics(await worker.claim()) == ["a1"]


async def test_lower_number_that_is_committed_late_waits_for_the_higher_in_flight(worker: Clock, database: str) -> None:
    """Two transactions have no order of their own, but never two messages of a key are in flight."""
    async with connected(database) as late:
        transaction = late.transaction()
        await transaction.start()
        await late.execute("select outbox.enqueue('lower', key => 'k')")
        await enqueue(worker, "higher", key="k")
        [higher] = await worker.claim()
        assert higher.topic == "higher"
        await transaction.commit()
    assert await worker.claim() == []
    await complete(worker, higher)
    assert topics(await worker.claim()) == ["lower"]


async def test_commit_order_makes_the_order_of_numbers_that_of_commits(worker: Clock, database: str) -> None:
    async with connected(database) as first, connected(database) as second, anyio.create_task_group() as tasks:
        statement = "select outbox.enqueue($1, key => 'k', commit_order => true)"
        transaction = first.transaction()
        await transaction.start()
        await first.execute(statement, "first")
        tasks.start_soon(second.execute, statement, "second")
        async with connected(database) as observer, blocked_on(observer, second):
            await transaction.commit()
    [head] = await worker.claim()
    assert head.topic == "first"


async def test_message_that_arrives_while_its_predecessor_is_settled_is_not_left_behind(
    worker: Clock, database: str
) -> None:
    """The settle's snapshot does not hold it, and yet it must not be parked behind one that is gone."""
    await enqueue(worker, "a0", key="a")
    [head] = await worker.claim()
    async with connected(database) as settling:
        transaction = settling.transaction()
        await transaction.start()
        await settling.execute("delete from outbox.message where message_id = $1", head.message_id)
        await enqueue(worker, "a1", key="a")
        assert await worker.store.claim_restricted(
            10, lease_s=60, worker_id=1, suspect_after=2
        )  # sees a0, and its lock
        await transaction.commit()
    assert topics(await worker.claim()) == ["a1"]


async def test_released_and_expired_leases_keep_the_order(worker: Clock) -> None:
    for n in range(2):
        await enqueue(worker, f"a{n}", key="a")
    head = await worker.claim()
    await worker.store.release(head)
    assert topics(await worker.claim(lease_s=60)) == ["a0"]
    worker.pass_s(61)
    again = await worker.claim()
    assert topics(again) == ["a0"]
    assert again[0].deliveries == 2
    await complete(worker, *again)
    assert topics(await worker.claim()) == ["a1"]


async def test_scheduled_head_is_waited_for(worker: Clock) -> None:
    await enqueue(worker, "later", key="a", available_at=worker.now + timedelta(seconds=60))
    await enqueue(worker, "now", key="a")
    assert await worker.claim() == []
    worker.pass_s(61)
    head = await worker.claim()
    assert topics(head) == ["later"]
    await complete(worker, *head)
    assert topics(await worker.claim()) == ["now"]


async def test_deleting_a_head_by_hand_lets_its_key_go_on(worker: Clock) -> None:
    for n in range(2):
        await enqueue(worker, f"a{n}", key="a")
    await worker.claim()
    await worker.claim()  # parks a1
    await worker.pool.execute("delete from outbox.message where topic = 'a0'")
    assert topics(await worker.claim()) == ["a1"]


async def test_two_workers_never_hold_two_messages_of_a_key(worker: Clock, database: str) -> None:
    for n in range(300):
        await enqueue(worker, f"{n}", key=f"k{n % 7}")
    order: dict[str, list[int]] = {f"k{n}": [] for n in range(7)}
    held: Counter[str] = Counter()

    async def work(mine: Clock) -> None:
        idle = 0
        while idle < 20:
            messages = await mine.claim(5)
            idle = 0 if messages else idle + 1
            for message in messages:
                assert message.key
                held[message.key] += 1
                assert held[message.key] == 1
                order[message.key].append(message.seq)
            await anyio.sleep(0)
            held.subtract(message.key for message in messages)
            await complete(mine, *messages)
            mine.store.now = None

    async with clock(database, name="w2") as two, clock(database, name="w3") as three:
        worker.store.now = two.store.now = three.store.now = None
        async with anyio.create_task_group() as tasks:
            for each in (worker, two, three):
                tasks.start_soon(work, each)
    assert sum(map(len, order.values())) == 300
    assert all(seqs == sorted(seqs) for seqs in order.values())


# Tenants


async def test_tenants_take_turns(worker: Clock) -> None:
    for n in range(50):
        await enqueue(worker, f"big{n}", tenant="big")
    for n in range(5):
        await enqueue(worker, f"small{n}", tenant="small")
    first = await worker.claim(10)
    assert Counter(message.tenant for message in first) == {"big": 5, "small": 5}
    assert [m.topic for m in first if m.tenant == "big"] == [f"big{n}" for n in range(5)]


async def test_more_lanes_than_room_take_turns_too(worker: Clock) -> None:
    for n in range(30):
        await enqueue(worker, f"{n}", tenant=f"t{n:02}")
        await enqueue(worker, f"{n}", tenant=f"t{n:02}")
    seen: list[str | None] = []
    lane = ""
    for _ in range(6):
        batch = await worker.store.claim_restricted(
            10, lease_s=60, worker_id=worker.worker_id, suspect_after=2, lane=lane
        )
        lane = batch.lane
        seen += [message.tenant for message in batch.messages]
    assert Counter(seen[:30]) == {f"t{n:02}": 1 for n in range(30)}, (
        "no tenant has a second turn before all had a first"
    )


# Limits


async def claimed_over(worker: Clock, seconds: int, step_s: float = 0.25) -> list[float]:
    """Claim everything that may be claimed for a while; return the seconds at which messages were."""
    began = worker.now
    times: list[float] = []
    while (worker.now - began).total_seconds() <= seconds:
        messages = await worker.claim(1000)
        times += [(worker.now - began).total_seconds()] * len(messages)
        await complete(worker, *messages)
        worker.pass_s(step_s)
    return times


async def test_limited_topic_keeps_its_rate_and_its_burst(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail.*', 10, 5)")
    await worker.pool.execute("select outbox.enqueue('mail.welcome') from generate_series(1, 100)")
    await worker.pool.execute("select outbox.enqueue('other') from generate_series(1, 20)")
    assert Counter(topics(await worker.claim(1000))) == {"other": 20, "mail.welcome": 5}
    times = await claimed_over(worker, 5)
    assert 48 <= len(times) <= 50 + 5
    for start in times:
        assert sum(start <= t < start + 1 for t in times) <= 10 + 5


async def test_messages_of_a_limited_topic_are_rewritten_once_however_many_wait(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 1, 1)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 50)")
    for _ in range(5):
        await worker.claim(1000)
    before = {
        row["message_id"]: row["x"]
        for row in await worker.pool.fetch("select message_id, xmin::text as x from outbox.message")
    }
    for _ in range(20):
        await worker.claim(1000)
        worker.pass_s(0.01)
    after = {
        row["message_id"]: row["x"]
        for row in await worker.pool.fetch("select message_id, xmin::text as x from outbox.message")
    }
    assert before == after


async def test_late_messages_do_not_overtake_those_that_wait_for_their_time(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 1, 1)")
    for n in range(3):
        await enqueue(worker, "mail", key=f"early{n}")
    assert len(await worker.claim()) == 1
    worker.pass_s(0.99)
    await enqueue(worker, "mail", key="late")
    assert await worker.claim() == []
    keys = []
    for _ in range(4):
        worker.pass_s(1.01)
        keys += [message.key for message in await worker.claim()]
    assert keys == ["early1", "early2", "late"]


async def test_after_an_outage_the_rate_is_kept(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 10, 5)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 200)")
    await worker.claim(1000)
    worker.pass_s(15)  # no claim while 150 of their times pass
    times = await claimed_over(worker, 4)
    for start in times:
        assert sum(start <= t < start + 1 for t in times) <= 10 + 5
    assert len(times) >= 40


async def test_lifted_limit_lets_everything_go(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 0.001, 1)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 20)")
    assert len(await worker.claim()) == 1
    await worker.pool.execute("select outbox.limit_topic('mail', null)")
    assert len(await worker.claim()) == 19


# Pauses


@pytest.mark.parametrize(
    ("pause", "left"),
    [("topic => 'a.x'", {"a.y", "b"}), ("topic => 'a.*'", {"b"}), ("key => 'k'", {"a.x", "b"}), ("", set())],
)
async def test_what_is_paused_is_not_claimed_until_it_is_resumed(worker: Clock, pause: str, left: set[str]) -> None:
    await enqueue(worker, "a.x")
    await enqueue(worker, "a.y", key="k")
    await enqueue(worker, "b")
    await worker.pool.execute(f"select outbox.pause({pause})")
    first = await worker.claim()
    assert set(topics(first)) == left
    assert await worker.claim() == []
    worker.pass_s(3600)
    assert [m.topic for m in await worker.claim() if m.topic not in left] == []
    assert await worker.pool.fetchval(f"select outbox.resume({pause})")
    assert set(topics(await worker.claim())) >= {"a.x", "a.y", "b"} - left
    assert not await worker.pool.fetchval(f"select outbox.resume({pause})"), "it was resumed already"


async def test_pause_of_a_topic_keeps_what_follows_on_its_keys(worker: Clock) -> None:
    await enqueue(worker, "a", key="k")
    await enqueue(worker, "b", key="k")
    await worker.pool.execute("select outbox.pause(topic => 'a')")
    assert await worker.claim() == []
    await worker.pool.execute("select outbox.resume(topic => 'a')")
    [head] = await worker.claim()
    assert head.topic == "a"
    await complete(worker, head)
    assert topics(await worker.claim()) == ["b"]


async def test_pausing_again_after_a_resume_parks_again(worker: Clock) -> None:
    await worker.pool.execute("select outbox.pause(topic => 'a'), outbox.resume(topic => 'a')")
    await worker.pool.execute("select outbox.pause(topic => 'a')")
    await enqueue(worker, "a")
    assert await worker.claim() == []


# Expiry


async def test_expired_message_says_so_when_its_turn_comes(worker: Clock) -> None:
    await enqueue(worker, "in time", expires_at=worker.now + timedelta(seconds=60))
    await enqueue(worker, "too late", expires_at=worker.now - timedelta(seconds=1))
    await enqueue(worker, "forget", expires_at=worker.now - timedelta(seconds=1), on_expiry="discard", key="k")
    assert {m.topic: m.expired for m in await worker.claim()} == {
        "in time": None,
        "too late": "bury",
        "forget": "discard",
    }


# Dedup windows


async def test_delivered_dedup_key_keeps_its_like_away_for_its_window(worker: Clock) -> None:
    worker.store.now = None
    first = await enqueue(worker, dedup_key="d", dedup_window=timedelta(hours=1))
    assert await enqueue(worker, dedup_key="d") == first
    await complete(worker, *await worker.claim())
    assert await enqueue(worker, dedup_key="d") == first
    assert await worker.pool.fetchval("select count(*) from outbox.message") == 0
    await worker.pool.execute("update outbox.delivered_key set until = now()")
    assert await enqueue(worker, dedup_key="d") != first


async def test_dedup_window_of_nothing_ends_with_the_delivery(worker: Clock) -> None:
    worker.store.now = None
    first = await enqueue(worker, dedup_key="d", dedup_window=timedelta(0))
    await complete(worker, *await worker.claim())
    assert await enqueue(worker, dedup_key="d") != first


async def test_enqueue_that_races_with_the_delivery_of_its_like_adds_nothing(worker: Clock, database: str) -> None:
    worker.store.now = None
    first = await enqueue(worker, dedup_key="d")
    [message] = await worker.claim()
    found: list[UUID] = []
    async with connected(database) as settling, connected(database) as producing, connected(database) as observer:

        async def produce() -> None:
            found.append(await producing.fetchval("select outbox.enqueue('t', dedup_key => 'd')"))

        transaction = settling.transaction()
        await transaction.start()
        await settling.execute(
            "with gone as (delete from outbox.message where message_id = $1 returning *) "
            "insert into outbox.delivered_key select dedup_key, message_id, now() + dedup_window from gone",
            message.message_id,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            async with blocked_on(observer, producing):
                await transaction.commit()
    assert found == [first]
    assert await worker.pool.fetchval("select count(*) from outbox.message") == 0


# Bounds of input


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("payload => to_json(repeat('x', 2097152))", "payload is 2097154 bytes long, the limit is 2096128"),
        ("headers => json_build_object('h', repeat('x', 65536))", "headers are 65546 bytes long"),
        ("key => repeat('k', 1001)", "key is 1001 bytes long, the limit is 1000"),
        ("key => ''", "key must not be empty"),
        ("tenant => repeat('k', 1001)", "tenant is 1001 bytes long"),
        ("dedup_key => repeat('k', 1001)", "dedup_key is 1001 bytes long"),
        ("on_expiry => 'keep'", "on_expiry is 'keep'"),
        ("dedup_window => '-1 s'", "dedup_window is -00:00:01, it must lie between 0 and 100 years"),
        ("target => json_build_object('operation', 'start_workflow', 'workflow_id', 'w', 'workflow', repeat('w', 1001))", "workflow is 1001 bytes long"),
    ],
)  # fmt: skip
async def test_too_large_input_is_refused_at_enqueue(worker: Clock, arguments: str, fault: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await worker.pool.fetchval(f"select outbox.enqueue('t', {arguments})")
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    "call",
    [
        "limit_topic('*x', 1)",
        "limit_topic('a*', 1)",
        "pause(topic => '')",
        "limit_topic('a', 0)",
        "limit_topic('a', 1, 0)",
        "limit_topic('a', 'NaN')",
        "limit_topic('a', 1e-9)",
        "pause('a', 'b')",
    ],
)
async def test_bad_rule_is_refused(worker: Clock, call: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await worker.pool.execute(f"select outbox.{call}")


# What a review found: no message is left behind


async def test_message_of_a_dead_worker_is_delivered_after_a_pause(worker: Clock) -> None:
    await enqueue(worker, "t", key="k")
    assert len(await worker.claim(lease_s=60)) == 1
    await worker.pool.execute("select outbox.pause(topic => 't')")
    worker.pass_s(61)
    assert await worker.claim() == []
    await worker.pool.execute("select outbox.resume(topic => 't')")
    [message] = await worker.claim()
    assert message.deliveries == 2


@pytest.mark.parametrize("how", ["retry", "release"])
async def test_message_parked_behind_a_higher_number_is_called_when_that_one_comes_back(
    worker: Clock, database: str, how: str
) -> None:
    async with connected(database) as late:
        transaction = late.transaction()
        await transaction.start()
        await late.execute("select outbox.enqueue('lower', key => 'k')")
        await enqueue(worker, "higher", key="k")
        [higher] = await worker.claim()
        await transaction.commit()
    assert await worker.claim() == []  # parks the lower one
    if how == "retry":
        await retry(worker, higher, 5)
        worker.pass_s(6)
    else:
        await worker.store.release([higher])
    claimed = [*await worker.claim(), *await worker.claim()]
    assert topics(claimed) == ["lower"]
    await complete(worker, *claimed)
    assert topics(await worker.claim()) == ["higher"]


async def test_settlement_does_not_wait_for_a_cancellation_of_the_next_of_the_key(worker: Clock, database: str) -> None:
    for n in range(3):
        await enqueue(worker, f"a{n}", key="a")
    [head] = await worker.claim()
    async with connected(database) as person:
        transaction = person.transaction()
        await transaction.start()
        await person.execute("select outbox.cancel(message_id) from outbox.message where topic = 'a1'")
        with anyio.fail_after(5):
            await complete(worker, head)
        assert await worker.claim() == []
        await transaction.commit()
    assert topics(await worker.claim()) == ["a2"]


async def test_next_of_a_key_is_called_also_after_a_cancellation_with_an_older_snapshot(
    worker: Clock, database: str
) -> None:
    await enqueue(worker, "a0", key="a", available_at=worker.now + timedelta(hours=1))
    async with connected(database) as person:
        transaction = person.transaction(isolation="repeatable_read")
        await transaction.start()
        await person.execute("select 1 from outbox.message")
        await enqueue(worker, "a1", key="a")
        assert await worker.claim() == []
        await person.execute("select outbox.cancel(message_id) from outbox.message where topic = 'a0'")
        await transaction.commit()
    assert await worker.store.call_sleepers() == (1, None)
    assert await worker.store.call_sleepers() == (0, None)
    assert topics(await worker.claim()) == ["a1"]


async def test_waiting_message_is_called_also_if_another_than_the_first_leaves(worker: Clock) -> None:
    """The first comes back as a dead letter does, and goes while the one that was followed is taken away."""
    await enqueue(worker, "a0", key="a")
    [first] = await worker.claim()
    await worker.store.bury([Burial(first, "rejected", counted=True, kind="K", detail="d")])
    await enqueue(worker, "a1", key="a")
    await enqueue(worker, "a2", key="a")
    [second] = await worker.claim()
    assert await worker.claim() == [], "a2 waits behind a1"
    await worker.store.retry([Retry(second, 1000.0, counted=True, kind="K", detail="d")])
    assert await DeadLetters(worker.pool, "outbox").requeue([first.message_id]) == {first.message_id: True}
    worker.pass_s(1)
    [again] = await worker.claim()
    assert again.topic == "a0"
    await worker.pool.execute("select outbox.cancel(message_id) from outbox.message where topic = 'a1'")
    assert await worker.claim() == [], "a0 is still in flight"
    await worker.store.complete([(again, Delivered())])
    assert topics(await worker.claim()) == ["a2"]


async def test_waiting_message_is_called_also_if_one_claim_found_it_and_the_returned_first(
    worker: Clock,
) -> None:
    await enqueue(worker, "a0", key="a", available_at=worker.now + timedelta(seconds=10))
    await enqueue(worker, "a1", key="a", tenant="t")
    worker.pass_s(20)
    while claimed := await worker.claim():
        await worker.store.complete([(message, Delivered()) for message in claimed])
    assert await worker.pool.fetchval("select count(*) from outbox.message") == 0


async def test_suspect_goes_first_and_starves_no_other(worker: Clock) -> None:
    for n in range(40):
        await enqueue(worker, f"a{n}", tenant="a")
    suspect = await enqueue(worker, "suspect", tenant="b")
    await enqueue(worker, "c", tenant="c")
    await worker.pool.execute("update outbox.message set deliveries = 2 where message_id = $1", suspect)
    assert topics(await worker.claim(10)) == ["suspect"]
    assert "c" in topics(await worker.claim(10))


async def test_suspect_does_not_use_up_the_limits_of_messages_that_wait_for_it(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 0.001, 5)")
    await worker.pool.execute("select outbox.enqueue('mail', tenant => 'a') from generate_series(1, 8)")
    suspect = await enqueue(worker, "suspect", tenant="b")
    await worker.pool.execute("update outbox.message set deliveries = 2 where message_id = $1", suspect)
    assert topics(await worker.claim(20)) == ["suspect"]
    assert topics(await worker.claim(20)) == ["mail"] * 5


async def test_suspect_over_its_limit_steps_aside(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 0.001, 1)")
    await enqueue(worker, "mail", tenant="a")
    assert topics(await worker.claim(20)) == ["mail"]
    suspect = await enqueue(worker, "mail", tenant="a")
    await worker.pool.execute("update outbox.message set deliveries = 2 where message_id = $1", suspect)
    await enqueue(worker, "other", tenant="b")
    batch = await worker.store.claim_restricted(20, lease_s=60, worker_id=1, suspect_after=2)
    assert (batch.messages, batch.more) == ([], True)
    assert topics(await worker.claim(20)) == ["other"]


async def test_last_lane_gets_no_more_than_its_share(worker: Clock) -> None:
    for n in range(33):
        await worker.pool.execute("select outbox.enqueue('t', tenant => $1) from generate_series(1, 30)", f"t{n:02}")
    lane, seen = "", Counter[str | None]()
    for _ in range(20):
        batch = await worker.store.claim_restricted(32, lease_s=60, worker_id=1, suspect_after=2, lane=lane)
        lane = batch.lane
        seen.update(message.tenant for message in batch.messages)
    assert max(seen.values()) - min(seen.values()) <= 1


async def test_locked_message_leads_to_a_pause_and_not_to_another_claim_at_once(worker: Clock, database: str) -> None:
    for n in range(3):
        await enqueue(worker, f"a{n}", key="a")
    async with connected(database) as person:
        transaction = person.transaction()
        await transaction.start()
        await person.execute("select outbox.cancel(message_id) from outbox.message where topic = 'a0'")
        batch = await worker.store.claim_restricted(10, lease_s=60, worker_id=1, suspect_after=2)
        assert (batch.messages, batch.more) == ([], False)
        assert batch.next_due_s is not None
        assert 0 < batch.next_due_s < 0.1
        await transaction.commit()
    assert topics(await worker.claim()) == ["a1"]


async def test_what_comes_back_keeps_its_place_behind_a_limit(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 1, 1)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 100)")
    [first] = await worker.claim(1000)
    await worker.claim(1000)
    await worker.store.release([first])
    worker.pass_s(1.01)
    [again] = await worker.claim(1000)
    assert again.message_id == first.message_id


async def test_times_of_cancelled_messages_are_used_again(worker: Clock) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 1, 1)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 100)")
    await worker.claim(1000)
    await worker.pool.execute("select outbox.cancel(message_id) from outbox.message")
    await worker.pool.execute("delete from outbox.message")
    worker.pass_s(2)
    await enqueue(worker, "mail")
    assert len(await worker.claim()) == 1


async def test_setting_the_same_limit_again_gives_no_fresh_burst(worker: Clock) -> None:
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 100)")
    claimed = 0
    for _ in range(5):
        await worker.pool.execute("select outbox.limit_topic('mail', 1, 10)")
        claimed += len(await worker.claim(1000))
    assert claimed == 10


async def test_claim_skips_a_limit_while_it_is_being_changed(worker: Clock, database: str) -> None:
    await worker.pool.execute("select outbox.limit_topic('mail', 1, 10)")
    await worker.pool.execute("select outbox.enqueue('mail') from generate_series(1, 5)")
    await enqueue(worker, "other", key="k")
    async with connected(database) as person:
        transaction = person.transaction()
        await transaction.start()
        await person.execute("select outbox.limit_topic('mail', 2, 1)")
        with anyio.fail_after(5):
            assert topics(await worker.claim()) == ["other"]
        await transaction.commit()
    assert topics(await worker.claim()) == ["mail"]
