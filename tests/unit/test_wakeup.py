"""The doorbell: many rings are one, and no ring is lost."""

from __future__ import annotations

import anyio
import pytest

from outbox.model.events import SourceDegraded, SourceRestored
from outbox.wakeup.doorbell import Wakeup
from tests.support.event_log import EventLog

LONG_S = 60.0


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup(emit=lambda _: None)


async def test_ring_before_the_wait_ends_it_at_once(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    with anyio.fail_after(5):
        assert await wakeup.wait(LONG_S) == "listen"


async def test_ring_during_the_wait_ends_it(wakeup: Wakeup) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ring_later, wakeup)
        with anyio.fail_after(5):
            assert await wakeup.wait(LONG_S) == "listen"


async def ring_later(wakeup: Wakeup) -> None:
    await anyio.wait_all_tasks_blocked()
    wakeup.ring("listen")


async def test_silence_ends_by_time(wakeup: Wakeup) -> None:
    assert await wakeup.wait(0.001) is None


async def test_many_rings_are_one(wakeup: Wakeup) -> None:
    for _ in range(1000):
        wakeup.ring("listen")
    assert await wakeup.wait(LONG_S) == "listen"
    assert await wakeup.wait(0.001) is None


async def test_last_ringer_is_named(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    wakeup.ring("retry")
    assert await wakeup.wait(LONG_S) == "retry"


async def test_ring_survives_a_wait_without_time(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    assert await wakeup.wait(0.0) == "listen"


async def test_ring_after_a_timeout_ends_the_next_wait(wakeup: Wakeup) -> None:
    assert await wakeup.wait(0.0) is None
    wakeup.ring("listen")
    assert await wakeup.wait(LONG_S) == "listen"


async def test_ring_survives_the_cancellation_of_its_waiter(wakeup: Wakeup) -> None:
    heard: list[str | None] = []

    async def listen() -> None:
        heard.append(await wakeup.wait(LONG_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        wakeup.ring("listen")
        tasks.cancel_scope.cancel()
    if not heard:  # the cancellation came first; otherwise the waiter has the ring
        heard.append(await wakeup.wait(0.0))
    assert heard == ["listen"]


async def test_cancelled_wait_leaves_the_next_ring_for_the_next_wait(wakeup: Wakeup) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait, LONG_S)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    wakeup.ring("listen")
    with anyio.fail_after(5):
        assert await wakeup.wait(LONG_S) == "listen"


async def test_every_ring_ends_a_wait_that_begins_after_the_one_before(wakeup: Wakeup) -> None:
    heard = 0
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            nonlocal heard
            while heard < 200:
                heard += await wakeup.wait(LONG_S) is not None

        tasks.start_soon(listen)
        with anyio.fail_after(5):
            while heard < 200:
                before = heard
                wakeup.ring("listen")
                while heard == before:
                    await anyio.lowlevel.checkpoint()


class Clock:
    """Monotonic seconds that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log() -> EventLog:
    return EventLog()


@pytest.fixture
def judged(clock: Clock, log: EventLog) -> Wakeup:
    """A doorbell with one subscribed source."""
    wakeup = Wakeup(log, clock)
    wakeup.subscribed("listen", grace_s=1.0)
    return wakeup


async def later(wakeup: Wakeup, clock: Clock, seconds: float) -> None:
    """Let time go by, and the waiter come by the doorbell."""
    clock.now_s += seconds
    await wakeup.wait(0.0)


async def make_deaf(wakeup: Wakeup, clock: Clock) -> None:
    await later(wakeup, clock, 5.0)
    wakeup.missed_notification()
    await later(wakeup, clock, 1.1)


async def test_subscription_is_trusted_and_has_the_relay_look(judged: Wakeup) -> None:
    assert judged.has_trusted_source
    assert judged.trusts("listen")
    assert await judged.wait(LONG_S) == "listen"


async def test_end_of_a_subscription_has_the_relay_look(judged: Wakeup) -> None:
    await judged.wait(0.0)
    judged.unsubscribed("listen")
    assert not judged.has_trusted_source
    assert await judged.wait(LONG_S) == "listen"


async def test_source_that_missed_messages_is_degraded(judged: Wakeup, clock: Clock, log: EventLog) -> None:
    await make_deaf(judged, clock)
    assert log.of(SourceDegraded) == [SourceDegraded("listen", 1.0)]
    assert not judged.has_trusted_source
    assert judged.has("listen")


async def test_hint_that_comes_after_the_poll_is_late_and_not_missed(
    judged: Wakeup, clock: Clock, log: EventLog
) -> None:
    await later(judged, clock, 5.0)
    judged.missed_notification()
    clock.now_s += 0.9
    judged.ring("listen")
    await later(judged, clock, 5.0)
    assert not log.of(SourceDegraded)


async def test_source_that_rang_a_moment_ago_missed_nothing(judged: Wakeup, clock: Clock, log: EventLog) -> None:
    await later(judged, clock, 5.0)
    judged.ring("listen")
    await later(judged, clock, 0.9)
    judged.missed_notification()
    await later(judged, clock, 5.0)
    assert not log.of(SourceDegraded)


async def test_nudges_prove_nothing(judged: Wakeup, clock: Clock, log: EventLog) -> None:
    await later(judged, clock, 5.0)
    judged.missed_notification()
    judged.nudge("listen")
    await later(judged, clock, 1.1)
    assert log.of(SourceDegraded)


async def test_doubt_becomes_a_verdict_in_time_also_in_a_long_wait(log: EventLog) -> None:
    wakeup = Wakeup(log)
    wakeup.subscribed("listen", grace_s=0.05)
    await wakeup.wait(0.0)
    await anyio.sleep(0.06)  # the source's silence itself
    wakeup.missed_notification()
    with anyio.fail_after(5):
        assert await wakeup.wait(LONG_S) is None
    assert log.of(SourceDegraded)


async def test_degraded_source_is_trusted_after_three_rings(judged: Wakeup, clock: Clock, log: EventLog) -> None:
    await make_deaf(judged, clock)
    for _ in range(2):
        judged.ring("listen")
        assert not judged.trusts("listen")
    judged.ring("listen")
    assert judged.trusts("listen")
    assert log.of(SourceRestored) == [SourceRestored("listen")]


async def test_another_miss_starts_the_proof_again(judged: Wakeup, clock: Clock, log: EventLog) -> None:
    await make_deaf(judged, clock)
    judged.ring("listen")
    judged.ring("listen")
    await make_deaf(judged, clock)
    judged.ring("listen")
    assert not judged.trusts("listen")
    assert len(log.of(SourceDegraded)) == 1, "it is reported once"


async def test_subscribing_again_does_not_wash_a_source_clean(judged: Wakeup, clock: Clock) -> None:
    await make_deaf(judged, clock)
    judged.unsubscribed("listen")
    judged.subscribed("listen", grace_s=1.0)
    assert not judged.has_trusted_source


async def test_each_source_answers_for_itself(judged: Wakeup, clock: Clock) -> None:
    judged.subscribed("realtime", grace_s=3.0)
    await later(judged, clock, 5.0)
    judged.missed_notification()
    clock.now_s += 0.5
    judged.ring("realtime")
    await later(judged, clock, 1.0)
    assert judged.trusts("realtime")
    assert not judged.trusts("listen")
    assert judged.has_trusted_source
