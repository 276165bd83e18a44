"""Delivering: a fixed number of slots, each handing one message at a time to the sink and acting on the verdict.

A slot lives as long as the relay. There is no task, time-out scope or event for each message: a watchdog looks at all
slots together, and gives up on a sink that overruns its own time-out.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.cancellation import is_for_us
from outbox.model.errors import place_of
from outbox.model.events import DeliveryStuck, Emit, PaceChanged, Settlement, SlotsChanged, Why
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
from outbox.relay.pace import Pace, Width
from outbox.relay.settings import LEASE_MARGIN_S, OVERDUE_S
from outbox.relay.verdict import PutBack, Release, judge, soften, tried
from outbox.store.messages import Burial, Retry

if TYPE_CHECKING:
    from outbox.loops.watchdog import Pulse
    from outbox.model.message import Message, Parcel
    from outbox.model.sink import Sink
    from outbox.relay.buffer import Inbox
    from outbox.relay.hold import Hold
    from outbox.relay.settings import RelaySettings
    from outbox.relay.settle import Settler

OVERRUN_S = 1.0
"""How far a sink may overrun its time-out before the watchdog gives the delivery up. Also the watchdog's period."""


class Slot:
    """One delivery at a time. `parcel` and `began_s` say what it is at; the watchdog reads them."""

    __slots__ = ("began_s", "number", "parcel", "scope")

    def __init__(self, number: int) -> None:
        self.number = number
        self.parcel: Parcel | None = None
        self.began_s = 0.0
        self.scope = anyio.CancelScope()


class Deliverer:
    """All slots, the watchdog over them, and the limits that the sink's throttling and time-outs impose."""

    def __init__(
        self,
        sink: Sink,
        inbox: Inbox,
        hold: Hold,
        settler: Settler,
        pace: Pace,
        emit: Emit,
        settings: RelaySettings,
        pulse: Pulse,
    ) -> None:
        self._sink = sink
        self._inbox = inbox
        self._hold = hold
        hold.conclude = self._conclude_doubt
        self._settler = settler
        self._pace = pace
        self._emit = emit
        self._settings = settings
        self._pulse = pulse
        self._turn = anyio.Lock()
        self._enough_s = settings.deliver_timeout_s + LEASE_MARGIN_S
        self.slots = [Slot(number) for number in range(settings.concurrency)]
        self._width = Width(settings.concurrency)
        self._is_narrow = False
        self._widened = anyio.Event()
        self.is_paused: Callable[[Message], bool] | None = None
        """Which messages are not to follow others any more that were claimed with them."""

    @property
    def in_flight(self) -> int:
        """How many messages the sink is being asked about at this moment."""
        return sum(slot.parcel is not None for slot in self.slots)

    def turn_out(self, why: Why, which: Callable[[Message], bool] | None = None) -> None:
        """Release what is claimed but not begun: everything, or that of `which` this holds."""
        for parcel in self._inbox.turn_out(which):
            self._settler.release(parcel.messages, why)

    def drain(self) -> None:
        """Release what is not begun, and let the slots that wait see that the inbox is closed."""
        self.turn_out("drain")
        self._widened.set()

    async def work(self, slot: Slot) -> None:
        """Deliver until the inbox is closed and empty. The watchdog may interrupt a delivery, never the slot."""
        while not (self._inbox.closed and slot.parcel is None):
            with slot.scope:
                await self._deliver_all(slot)
            if slot.scope.cancelled_caught and slot.parcel is not None:
                detail = f"the sink gave no answer within {monotonic() - slot.began_s:.1f} s"
                stuck = Unknown("TIMEOUT", detail, timed_out=True)
                self._emit(DeliveryStuck(slot.parcel.message, monotonic() - slot.began_s))
                self._conclude(slot, slot.parcel, stuck)
            slot.scope = anyio.CancelScope()

    async def watch(self) -> None:
        """Give up deliveries whose sink overran its time-out, until cancelled."""
        limit_s = self._settings.deliver_timeout_s + OVERRUN_S
        while True:
            self._pulse.expect("deliver", OVERDUE_S)
            now_s = monotonic()
            self._pace.tick(now_s)
            for slot in self.slots:
                if slot.parcel is not None and now_s - slot.began_s > limit_s:
                    slot.scope.cancel()
            await anyio.sleep(OVERRUN_S)

    async def _deliver_all(self, slot: Slot) -> None:
        """The hot loop. It returns when the inbox is closed and empty, or when the slot's scope is spent."""
        inbox, sink, scope = self._inbox, self._sink, slot.scope
        while not scope.cancel_called:  # an answer may cross the watchdog, which then must not hit the next delivery
            if self._pace.rate is not None:
                await self._wait_for_turn()
            while self._is_narrow and slot.number >= self._width.allowed and not inbox.closed:
                await self._wait_for_width()
            now_s = monotonic()
            parcel = inbox.take(now_s)
            while parcel is not None and parcel.expires_s < now_s + self._enough_s:
                # Its lease would not outlast its delivery. It costs no turn of the pace.
                self._settler.release(parcel.messages, "lease")
                parcel = inbox.take(now_s)
            if parcel is None:
                if inbox.closed:
                    return
                await inbox.wait_for_parcel()
                continue
            slot.began_s = now_s
            slot.parcel = parcel
            try:
                outcome = await sink.deliver(parcel.message)
            except Exception as error:  # noqa: BLE001 - a fault of the sink must not stop the relay
                outcome = Failed(type(error).__name__, f"the sink raised {place_of(error)}")
            except anyio.get_cancelled_exc_class():
                if is_for_us():  # the watchdog, or the end of the drain
                    raise
                outcome = Unknown("CANCELLED", "something inside the sink was cancelled")
            self._conclude(slot, parcel, outcome)

    def _conclude(self, slot: Slot, parcel: Parcel, outcome: Outcome) -> None:
        """Act on the sink's answer. Synchronous: a message is never between two states."""
        if isinstance(outcome, Unknown) and outcome.timed_out:
            self._narrow(slot)
        elif self._is_narrow and not isinstance(outcome, Unavailable):
            self._widen()
        slot.parcel = None
        if isinstance(outcome, Delivered):
            self._complete(parcel, outcome)
        else:
            self._settle(parcel, outcome)

    def _conclude_doubt(self, parcel: Parcel, outcome: Unavailable, *, well: bool) -> None:
        """Act on a delivery that failed with `Unavailable`, now that the sink has been probed."""
        at_once = not well or (outcome.meaning == "unreached" and not parcel.message.setbacks)
        self._act(parcel, tried(outcome, well=well), at_once=at_once)
        if not well:
            self.turn_out("hold")

    def _go_on(self, parcel: Parcel) -> None:
        """Have the messages follow that were claimed with one which is done with, unless they may not any more."""
        if not parcel.rest:
            return
        if self._inbox.closed or self._hold.outcome is not None:
            self._settler.release(parcel.rest, "drain" if self._inbox.closed else "hold")
        elif self.is_paused is not None and any(map(self.is_paused, parcel.rest)):
            self._settler.release(parcel.rest, "pause")
        else:
            self._inbox.follow(parcel.next)

    def _complete(self, parcel: Parcel, outcome: Delivered) -> None:
        self._hold.delivered += 1
        message, claimed_s = parcel.message, parcel.claimed_s
        now_s = monotonic()
        self._settler.complete(Settlement(message, outcome, now_s, message.age_s + now_s - claimed_s))
        self._go_on(parcel)
        self._pace.accepted += 1
        if self._pace.rate is not None and self._pace.speed_up(now_s):
            self._emit(PaceChanged(None, "no throttling any more"))

    def _settle(self, parcel: Parcel, outcome: Undelivered) -> None:
        if isinstance(outcome, Unavailable) and not self._inbox.closed:
            self._hold.doubt(parcel, outcome)
        else:
            outcome = tried(outcome, well=False) if isinstance(outcome, Unavailable) else outcome
            self._act(parcel, outcome)

    def _act(self, parcel: Parcel, outcome: Undelivered, *, at_once: bool = False) -> None:
        message = parcel.message
        outcome = soften(message, outcome, self._settings)
        match judge(message, outcome, self._settings, at_once=at_once):
            case Retry() as retry if isinstance(outcome, Retryable):
                self._settler.retry(retry, outcome)
                self._settler.release(parcel.rest, "order")
            case Burial() as burial if isinstance(outcome, Rejected | Failed):
                self._settler.bury(burial, outcome)
                self._go_on(parcel)
            case Release():
                self._settler.release(parcel.messages, "drain" if self._inbox.closed else "hold")
            case PutBack() if self._inbox.closed or self._hold.outcome is not None:
                self._settler.release(parcel.messages, "drain" if self._inbox.closed else "hold")
            case PutBack():
                self._inbox.put_back(parcel)
        if isinstance(outcome, Throttled) and outcome.scope == "sink":
            self._throttle(outcome)

    def _throttle(self, outcome: Throttled) -> None:
        if self._pace.slow_down(monotonic()):
            self._emit(PaceChanged(self._pace.rate, f"{outcome.kind}: {outcome.detail}"))

    def _narrow(self, slot: Slot) -> None:
        width = self._width
        if width.narrow(slot.began_s, monotonic(), self.in_flight):
            self._is_narrow = True
            self._inbox.narrow(width.allowed)
            self._emit(SlotsChanged(width.allowed, width.most))

    def _widen(self) -> None:
        width = self._width
        if width.widen():
            self._inbox.narrow(width.allowed)
            self._widened.set()
            self._widened = anyio.Event()
            self._is_narrow = width.allowed < width.most
            if not self._is_narrow:
                self._emit(SlotsChanged(width.allowed, width.most))

    async def _wait_for_width(self) -> None:
        """Wait until more deliveries may be in flight. The parcel that woke this slot is for another one."""
        self._inbox.wake_slot()
        await self._widened.wait()

    async def _wait_for_turn(self) -> None:
        """Wait for the next moment that the pace allows; slots stand in line without holding a message."""
        async with self._turn:
            if not self._inbox.closed:  # a drain does not wait for turns that nobody needs
                await anyio.sleep(self._pace.reserve(monotonic()))
