"""Delivering: a fixed number of slots, each handing one message at a time to the sink and acting on the verdict.

A slot lives as long as the relay. There is no task, time-out scope or event for each message: a watchdog looks at all
slots together, and gives up on a sink that overruns its own time-out.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.cancellation import cancelled_by_us
from outbox.model.errors import place_of
from outbox.model.events import DeliveryStuck, Emit, PaceChanged, ReleaseReason, Settlement, SlotsChanged
from outbox.model.sink import (
    Delivered,
    Failed,
    Outcome,
    Rejected,
    Retryable,
    Throttled,
    Unavailable,
    Undelivered,
    Unknown,
)
from outbox.relay.pace import ConcurrencyLimit, Pace
from outbox.relay.settings import LEASE_MARGIN_S, OVERDUE_S
from outbox.relay.verdict import PutBack, Release, judge, soften, tried
from outbox.store.messages import Burial, Retry

if TYPE_CHECKING:
    from outbox.loops.watchdog import Watchdog
    from outbox.model.message import Delivery, Message
    from outbox.model.sink import Sink
    from outbox.relay.buffer import Buffer
    from outbox.relay.hold import Hold
    from outbox.relay.settings import RelaySettings
    from outbox.relay.settle import Settler

OVERRUN_S = 1.0
"""How far a sink may overrun its time-out before the watchdog gives the delivery up. Also the watchdog's period."""


class Slot:
    """One delivery at a time. `delivery` and `began_s` say what it is at; the watchdog reads them."""

    __slots__ = ("began_s", "delivery", "number", "scope")

    def __init__(self, number: int) -> None:
        self.number = number
        self.delivery: Delivery | None = None
        self.began_s = 0.0
        self.scope = anyio.CancelScope()


class Deliverer:
    """All slots, the watchdog over them, and the limits that the sink's throttling and time-outs impose."""

    def __init__(
        self,
        sink: Sink,
        buffer: Buffer,
        hold: Hold,
        settler: Settler,
        pace: Pace,
        emit: Emit,
        settings: RelaySettings,
        watchdog: Watchdog,
    ) -> None:
        self._sink = sink
        self._buffer = buffer
        self._hold = hold
        hold.conclude = self._conclude_doubt
        self._settler = settler
        self._pace = pace
        self._emit = emit
        self._settings = settings
        self._watchdog = watchdog
        self._turn = anyio.Lock()
        self._enough_s = settings.deliver_timeout_s + LEASE_MARGIN_S
        self.slots = [Slot(number) for number in range(settings.concurrency)]
        self._width = ConcurrencyLimit(settings.concurrency)
        self._is_narrow = False
        self._widened = anyio.Event()
        self.is_paused: Callable[[Message], bool] | None = None
        """Which messages are not to follow others any more that were claimed with them."""

    @property
    def in_flight(self) -> int:
        """How many messages the sink is being asked about at this moment."""
        return sum(slot.delivery is not None for slot in self.slots)

    def turn_out(self, why: ReleaseReason, which: Callable[[Message], bool] | None = None) -> None:
        """Release what is claimed but not begun: everything, or that of `which` this holds."""
        for delivery in self._buffer.turn_out(which):
            self._settler.release(delivery.messages, why)

    def drain(self) -> None:
        """Release what is not begun, and let the slots that wait see that the buffer is closed."""
        self.turn_out("drain")
        self._widened.set()

    async def work(self, slot: Slot) -> None:
        """Deliver until the buffer is closed and empty. The watchdog may interrupt a delivery, never the slot."""
        while not (self._buffer.closed and slot.delivery is None):
            with slot.scope:
                await self._deliver_all(slot)
            if slot.scope.cancelled_caught and slot.delivery is not None:
                detail = f"the sink gave no answer within {monotonic() - slot.began_s:.1f} s"
                stuck = Unknown("TIMEOUT", detail, timed_out=True)
                self._emit(DeliveryStuck(slot.delivery.message, monotonic() - slot.began_s))
                self._conclude(slot, slot.delivery, stuck)
            slot.scope = anyio.CancelScope()

    async def watch(self) -> None:
        """Give up deliveries whose sink overran its time-out, until cancelled."""
        limit_s = self._settings.deliver_timeout_s + OVERRUN_S
        while True:
            self._watchdog.expect("deliver", OVERDUE_S)
            now_s = monotonic()
            self._pace.tick(now_s)
            for slot in self.slots:
                if slot.delivery is not None and now_s - slot.began_s > limit_s:
                    slot.scope.cancel()
            await anyio.sleep(OVERRUN_S)

    async def _deliver_all(self, slot: Slot) -> None:
        """The hot loop. It returns when the buffer is closed and empty, or when the slot's scope is spent."""
        buffer, sink, scope = self._buffer, self._sink, slot.scope
        while not scope.cancel_called:  # an answer may cross the watchdog, which then must not hit the next delivery
            if self._pace.rate is not None:
                await self._wait_for_turn()
            while self._is_narrow and slot.number >= self._width.allowed and not buffer.closed:
                await self._wait_for_width()
            now_s = monotonic()
            delivery = buffer.take(now_s)
            while delivery is not None and delivery.expires_s < now_s + self._enough_s:
                # Its lease would not outlast its delivery. It costs no turn of the pace.
                self._settler.release(delivery.messages, "lease")
                delivery = buffer.take(now_s)
            if delivery is None:
                if buffer.closed:
                    return
                await buffer.wait_for_delivery()
                continue
            slot.began_s = now_s
            slot.delivery = delivery
            try:
                outcome = await sink.deliver(delivery.message)
            except Exception as error:  # noqa: BLE001 - a fault of the sink must not stop the relay
                outcome = Failed(type(error).__name__, f"the sink raised {place_of(error)}")
            except anyio.get_cancelled_exc_class():
                if cancelled_by_us():  # the watchdog, or the end of the drain
                    raise
                outcome = Unknown("CANCELLED", "something inside the sink was cancelled")
            self._conclude(slot, delivery, outcome)

    def _conclude(self, slot: Slot, delivery: Delivery, outcome: Outcome) -> None:
        """Act on the sink's answer. Synchronous: a message is never between two states."""
        if isinstance(outcome, Unknown) and outcome.timed_out:
            self._narrow(slot)
        elif self._is_narrow and not isinstance(outcome, Unavailable):
            self._widen()
        slot.delivery = None
        if isinstance(outcome, Delivered):
            self._complete(delivery, outcome)
        else:
            self._settle(delivery, outcome)

    def _conclude_doubt(self, delivery: Delivery, outcome: Unavailable, *, well: bool) -> None:
        """Act on a delivery that failed with `Unavailable`, now that the sink has been probed."""
        at_once = not well or (outcome.meaning == "unreached" and not delivery.message.setbacks)
        self._act(delivery, tried(outcome, well=well), at_once=at_once)
        if not well:
            self.turn_out("hold")

    def _go_on(self, delivery: Delivery) -> None:
        """Have the messages follow that were claimed with one which is done with, unless they may not any more."""
        if not delivery.rest:
            return
        if self._buffer.closed or self._hold.outcome is not None:
            self._settler.release(delivery.rest, "drain" if self._buffer.closed else "hold")
        elif self.is_paused is not None and any(map(self.is_paused, delivery.rest)):
            self._settler.release(delivery.rest, "pause")
        else:
            self._buffer.follow(delivery.next)

    def _complete(self, delivery: Delivery, outcome: Delivered) -> None:
        self._hold.delivered += 1
        message, claimed_s = delivery.message, delivery.claimed_s
        now_s = monotonic()
        self._settler.complete(Settlement(message, outcome, now_s, message.age_s + now_s - claimed_s))
        self._go_on(delivery)
        self._pace.accepted += 1
        if self._pace.rate is not None and self._pace.speed_up(now_s):
            self._emit(PaceChanged(None, "no throttling any more"))

    def _settle(self, delivery: Delivery, outcome: Undelivered) -> None:
        if isinstance(outcome, Unavailable) and not self._buffer.closed:
            self._hold.doubt(delivery, outcome)
        else:
            outcome = tried(outcome, well=False) if isinstance(outcome, Unavailable) else outcome
            self._act(delivery, outcome)

    def _act(self, delivery: Delivery, outcome: Undelivered, *, at_once: bool = False) -> None:
        message = delivery.message
        outcome = soften(message, outcome, self._settings)
        match judge(message, outcome, self._settings, at_once=at_once):
            case Retry() as retry if isinstance(outcome, Retryable):
                self._settler.retry(retry, outcome)
                self._settler.release(delivery.rest, "order")
            case Burial() as burial if isinstance(outcome, Rejected | Failed):
                self._settler.bury(burial, outcome)
                self._go_on(delivery)
            case Release():
                self._settler.release(delivery.messages, "drain" if self._buffer.closed else "hold")
            case PutBack() if self._buffer.closed or self._hold.outcome is not None:
                self._settler.release(delivery.messages, "drain" if self._buffer.closed else "hold")
            case PutBack():
                self._buffer.put_back(delivery)
        if isinstance(outcome, Throttled) and outcome.scope == "sink":
            self._throttle(outcome)

    def _throttle(self, outcome: Throttled) -> None:
        if self._pace.slow_down(monotonic()):
            self._emit(PaceChanged(self._pace.rate, f"{outcome.kind}: {outcome.detail}"))

    def _narrow(self, slot: Slot) -> None:
        width = self._width
        if width.narrow(slot.began_s, monotonic(), self.in_flight):
            self._is_narrow = True
            self._buffer.narrow(width.allowed)
            self._emit(SlotsChanged(width.allowed, width.most))

    def _widen(self) -> None:
        width = self._width
        if width.widen():
            self._buffer.narrow(width.allowed)
            self._widened.set()
            self._widened = anyio.Event()
            self._is_narrow = width.allowed < width.most
            if not self._is_narrow:
                self._emit(SlotsChanged(width.allowed, width.most))

    async def _wait_for_width(self) -> None:
        """Wait until more deliveries may be in flight. The delivery that woke this slot is for another one."""
        self._buffer.wake_slot()
        await self._widened.wait()

    async def _wait_for_turn(self) -> None:
        """Wait for the next moment that the pace allows; slots stand in line without holding a message."""
        async with self._turn:
            if not self._buffer.closed:  # a drain does not wait for turns that nobody needs
                await anyio.sleep(self._pace.reserve(monotonic()))
