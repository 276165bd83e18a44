"""The inbox against a model: nothing is lost, doubled or overtaken, and nobody sleeps beside work."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outbox.model.message import Lease, Message, Parcel
from outbox.relay.buffer import Inbox

LARGE_BYTES = 20_000


def parcel(number: int, now_s: float, large_bytes: int | None = None) -> Parcel:
    message = Message(
        UUID(int=number), number, "t", None, None, "{}", None, 1, 0, 0, 0.0, number, large_bytes=large_bytes
    )
    return Parcel(message, now_s, now_s + 60.0)


class InboxMachine(RuleBasedStateMachine):
    """Claims, slots, settlements, hold and drain in any order."""

    @initialize(
        concurrency=st.integers(1, 20), prefetch=st.integers(0, 200), batch=st.integers(1, 100), large=st.booleans()
    )
    def begin(self, concurrency: int, prefetch: int, batch: int, large: bool) -> None:
        self.large, self.held = large, 5 * LARGE_BYTES
        self.concurrency, self.prefetch, self.batch = concurrency, prefetch, batch
        self.loop = asyncio.new_event_loop()
        self.inbox = self.loop.run_until_complete(self.make())
        self.now_s = 0.0
        self.next = 0
        self.waiting: deque[Parcel] = deque()
        self.taken: list[Parcel] = []
        self.settling = 0
        self.sleepers: list[asyncio.Task[None]] = []

    async def make(self) -> Inbox:
        return Inbox(concurrency=self.concurrency, prefetch=self.prefetch, batch=self.batch, held_bytes=self.held)

    @rule(more=st.booleans(), share=st.floats(0.0, 1.0))
    def claim(self, more: bool, share: float) -> None:
        room = self.inbox.room()
        assert 0 <= room <= self.batch
        if self.inbox.closed or not room:
            return
        self.inbox.more_due = more
        size = LARGE_BYTES if self.large else None
        if self.large:
            assert self.inbox.room_bytes() > 0
            room = min(room, -(-self.inbox.room_bytes() // LARGE_BYTES))
        parcels = [parcel(self.next + n, self.now_s, size) for n in range(room if more else int(room * share))]
        self.next += len(parcels)
        asleep = len(self.sleepers)
        self.inbox.put([p.message for p in parcels], Lease([], self.now_s, parcel(0, self.now_s).expires_s, more))
        self.waiting.extend(parcels)
        self.let_others_run()
        assert not asleep or not parcels or len(self.sleepers) < asleep

    @precondition(lambda self: len(self.taken) < self.concurrency)
    @rule()
    def take(self) -> None:
        expected = self.waiting.popleft() if self.waiting else None
        asleep = len(self.sleepers)
        assert self.inbox.take(self.now_s) == expected
        self.let_others_run()
        assert not asleep or not self.waiting or len(self.sleepers) < asleep, "one who takes wakes the next"
        if expected is not None:
            self.taken.append(expected)
        elif not self.inbox.closed:
            self.sleep()

    def sleep(self) -> None:
        sleeper = self.loop.create_task(self.inbox.wait_for_parcel())
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

    @precondition(lambda self: self.taken and not self.inbox.closed)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        back = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        asleep = len(self.sleepers)
        self.inbox.put_back(back)
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
        self.inbox.settled([parcel(0, 0.0, LARGE_BYTES if self.large else None).message] * count, count)

    @rule()
    def hold(self) -> None:
        turned_out = self.inbox.turn_out()
        assert turned_out == list(self.waiting)
        self.waiting.clear()
        self.settling += len(turned_out)

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def drain(self) -> None:
        self.inbox.close()
        self.hold()
        self.let_others_run()
        assert not self.sleepers

    @invariant()
    def every_parcel_is_accounted_for(self) -> None:
        if hasattr(self, "inbox"):
            assert self.inbox.outstanding == len(self.waiting) + len(self.taken) + self.settling
            assert self.inbox.outstanding <= self.concurrency + self.prefetch
            assert self.inbox.large_bytes == self.inbox.outstanding * LARGE_BYTES * self.large <= self.held

    @invariant()
    def empty_inbox_has_room(self) -> None:
        if hasattr(self, "inbox") and not self.inbox.outstanding:
            assert self.inbox.room() > 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for sleeper in self.sleepers:
                sleeper.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


TestInbox = InboxMachine.TestCase
TestInbox.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
