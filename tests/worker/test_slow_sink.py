"""A sink that answers later the more calls are in flight."""

from __future__ import annotations

from time import monotonic

import anyio
import pytest

from outbox.model.events import Claimed, Retried, SlotsChanged
from outbox.model.message import Message
from outbox.model.sink import Delivered, Outcome, Unknown
from tests.support.running import counts, enqueue, running
from tests.support.sinks import FakeSink

pytestmark = pytest.mark.timeout(90)
TIMEOUT_S, WORK_S = 0.1, 0.005


class QueueingSink(FakeSink):
    """Works on one call after the other, also on abandoned calls, as a starved server does."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_until_s = 0.0
        self.work_s = WORK_S

    async def deliver(self, message: Message) -> Outcome:
        now_s = monotonic()
        self.busy_until_s = max(self.busy_until_s, now_s) + self.work_s
        wait_s = self.busy_until_s - now_s
        await anyio.sleep(min(wait_s, TIMEOUT_S))
        return Delivered() if wait_s <= TIMEOUT_S else Unknown("CANCELLED", "Timeout expired", timed_out=True)


async def test_time_outs_of_a_starved_sink_do_not_keep_the_backlog_from_draining(database: str) -> None:
    await enqueue(database, 400)
    async with running(database, QueueingSink(), concurrency=32) as relay:
        await relay.wait_completed(400, timeout_s=40)
        widths = [event.slots for event in relay.log.of(SlotsChanged)]
    assert min(widths) < 20  # at 20 in flight the last one waits for a time-out
    assert await counts(database) == {"message": 0, "history": 400, "dead_letter": 0}


async def test_worker_tries_one_message_at_a_time_if_every_call_times_out(database: str) -> None:
    sink = QueueingSink()
    sink.work_s = 3600.0
    await enqueue(database, 200)
    async with running(database, sink, concurrency=16, prefetch=16) as relay:
        await relay.log.wait_until(
            lambda: any(event.slots == 1 for event in relay.log.of(SlotsChanged)), what="one slot"
        )
        seen = len(relay.log.of(Claimed))
        await relay.log.wait_until(lambda: len(relay.log.of(Claimed)) > seen + 20, what="more claims")
        assert max(len(event.messages) for event in relay.log.of(Claimed)[seen + 10 :]) <= 2
        assert not any(event.counted for event in relay.log.of(Retried))


async def test_all_slots_come_back_after_time_outs(database: str) -> None:
    sink = QueueingSink()
    await enqueue(database, 100)
    async with running(database, sink, concurrency=32) as relay:
        await relay.log.wait_for(SlotsChanged)
        sink.work_s = 0.0
        await enqueue(database, 1000)
        await relay.log.wait_until(
            lambda: any(event.slots == event.of for event in relay.log.of(SlotsChanged)), what="all slots"
        )
        await relay.wait_completed(1100)


async def test_a_worker_with_few_slots_left_drains_at_once(database: str) -> None:
    sink = QueueingSink()
    sink.work_s = 3600.0
    await enqueue(database, 100)
    async with running(database, sink, concurrency=16) as relay:
        await relay.log.wait_for(SlotsChanged)
        began_s = monotonic()
        await relay.stop()
        assert monotonic() - began_s < 5.0
