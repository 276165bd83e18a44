"""The buffer against a model: nothing is lost, doubled or overtaken, and no slot sleeps while there is work."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outbox.model.message import ClaimedBatch, Delivery, Message
from outbox.relay.buffer import Buffer

LARGE_BYTES = 20_000


def delivery(number: int, now_s: float, large_bytes: int | None = None) -> Delivery:
    message = Message(
        UUID(int=number), number, "t", None, None, "{}", None, 1, 0, 0, 0.0, number, large_bytes=large_bytes
    )
    return Delivery(message, now_s, now_s + 60.0)


class BufferMachine(RuleBasedStateMachine):
    """Claims, slots, settlements, hold and drain in any order."""

    @initialize(
        concurrency=st.integers(1, 20), prefetch=st.integers(0, 200), batch=st.integers(1, 100), large=st.booleans()
    )
    def begin(self, concurrency: int, prefetch: int, batch: int, large: bool) -> None:
        self.large, self.held = large, 5 * LARGE_BYTES
        self.concurrency, self.prefetch, self.batch = concurrency, prefetch, batch
        self.loop = asyncio.new_event_loop()
        self.buffer = self.loop.run_until_complete(self.make())
        self.now_s = 0.0
        self.next = 0
        self.waiting: deque[Delivery] = deque()
        self.taken: list[Delivery] = []
        self.settling = 0
        self.sleepers: list[asyncio.Task[None]] = []

    async def make(self) -> Buffer:
        return Buffer(concurrency=self.concurrency, prefetch=self.prefetch, batch=self.batch, held_bytes=self.held)

    @rule(more=st.booleans(), share=st.floats(0.0, 1.0))
    def claim(self, more: bool, share: float) -> None:
        room = self.buffer.room()
        assert 0 <= room <= self.batch
        if self.buffer.closed or not room:
            return
        self.buffer.more_due = more
        size = LARGE_BYTES if self.large else None
        if self.large:
            assert self.buffer.room_bytes() > 0
            room = min(room, -(-self.buffer.room_bytes() // LARGE_BYTES))
        deliveries = [delivery(self.next + n, self.now_s, size) for n in range(room if more else int(room * share))]
        self.next += len(deliveries)
        asleep = len(self.sleepers)
        self.buffer.put(
            [p.message for p in deliveries], ClaimedBatch([], self.now_s, delivery(0, self.now_s).expires_s, more)
        )
        self.waiting.extend(deliveries)
        self.let_others_run()
        assert not asleep or not deliveries or len(self.sleepers) < asleep

    @precondition(lambda self: len(self.taken) < self.concurrency)
    @rule()
    def take(self) -> None:
        expected = self.waiting.popleft() if self.waiting else None
        asleep = len(self.sleepers)
        assert self.buffer.take(self.now_s) == expected
        self.let_others_run()
        assert not asleep or not self.waiting or len(self.sleepers) < asleep, "one who takes wakes the next"
        if expected is not None:
            self.taken.append(expected)
        elif not self.buffer.closed:
            self.sleep()

    def sleep(self) -> None:
        sleeper = self.loop.create_task(self.buffer.wait_for_delivery())
        self.sleepers.append(sleeper)
        self.let_others_run()
        assert not sleeper.done(), "a slot that found nothing must sleep"

    def let_others_run(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.sleepers = [sleeper for sleeper in self.sleepers if not sleeper.done()]

    @precondition(lambda self: self.sleepers)
    @rule(data=st.data())
    def sleeping_slot_is_cancelled(self, data: st.DataObject) -> None:
        sleeper = self.sleepers.pop(data.draw(st.integers(0, len(self.sleepers) - 1)))
        sleeper.cancel()
        self.let_others_run()
        assert sleeper.cancelled()

    @precondition(lambda self: self.taken and not self.buffer.closed)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        back = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        asleep = len(self.sleepers)
        self.buffer.put_first(back)
        self.buffer.wake_slot()
        self.waiting.appendleft(back)
        self.let_others_run()
        assert not asleep or len(self.sleepers) < asleep

    @precondition(lambda self: self.taken)
    @rule()
    def conclude(self) -> None:
        self.taken.pop()
        self.settling += 1

    @precondition(lambda self: self.settling)
    @rule(share=st.floats(0.0, 1.0))
    def settle(self, share: float) -> None:
        count = max(1, int(self.settling * share))
        self.settling -= count
        self.buffer.settled([delivery(0, 0.0, LARGE_BYTES if self.large else None).message] * count, count)

    @rule()
    def hold(self) -> None:
        taken_out = self.buffer.take_out()
        assert taken_out == list(self.waiting)
        self.waiting.clear()
        self.settling += len(taken_out)

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def drain(self) -> None:
        self.buffer.close()
        self.hold()
        self.let_others_run()
        assert not self.sleepers

    @invariant()
    def every_parcel_is_accounted_for(self) -> None:
        if hasattr(self, "buffer"):
            assert self.buffer.outstanding == len(self.waiting) + len(self.taken) + self.settling
            assert self.buffer.outstanding <= self.concurrency + self.prefetch
            assert self.buffer.large_bytes == self.buffer.outstanding * LARGE_BYTES * self.large <= self.held

    @invariant()
    def empty_buffer_has_room(self) -> None:
        if hasattr(self, "buffer") and not self.buffer.outstanding:
            assert self.buffer.room() > 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for sleeper in self.sleepers:
                sleeper.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


TestInbox = BufferMachine.TestCase
TestInbox.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
