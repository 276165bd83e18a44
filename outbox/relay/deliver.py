"""Delivering: a fixed number of slots. Each hands one message at a time to the sink and acts on the outcome.

A slot lives as long as the relay. There is no task, time-out scope or event for each message: one loop looks at all
slots together, and gives up on a sink that overruns its own time-out.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.cancellation import cancelled_by_us
from outbox.model.errors import place_of
from outbox.model.events import DeliveryStuck, ReleaseReason, Settlement
from outbox.model.message import Delivery
from outbox.model.sink import Delivered, Failed, Outcome, Unavailable, Undelivered, Unknown
from outbox.relay.conclude import Action, IsPaused, concluded, following, released
from outbox.relay.limits import DeliveryLimits
from outbox.relay.settings import LEASE_MARGIN_S, OVERDUE_S, OVERRUN_S
from outbox.relay.verdict import tried

if TYPE_CHECKING:
    from outbox.relay.buffer import Buffer
    from outbox.relay.context import RelayContext
    from outbox.relay.hold import Hold
    from outbox.relay.settle import Settler


class Slot:
    """One delivery at a time. `delivery` and `began_s` say what it is at; `watch` reads them."""

    __slots__ = ("began_s", "delivery", "number", "scope")

    def __init__(self, number: int) -> None:
        self.number = number
        self.delivery: Delivery | None = None
        self.began_s = 0.0
        self.scope = anyio.CancelScope()


class Deliverer:
    """All slots, and what follows from the sink's answers."""

    def __init__(self, context: RelayContext, buffer: Buffer, hold: Hold, settler: Settler) -> None:
        self._sink = context.sink
        self._emit = context.emit
        self._settings = context.settings
        self._watchdog = context.watchdog
        self._buffer = buffer
        self._hold = hold
        self._settler = settler
        self._enough_s = self._settings.deliver_timeout_s + LEASE_MARGIN_S
        self._is_paused: IsPaused | None = None
        self.limits = DeliveryLimits(self._settings.concurrency, buffer, self._emit, in_flight=lambda: self.in_flight)
        self.slots = [Slot(number) for number in range(self._settings.concurrency)]

    @property
    def in_flight(self) -> int:
        """How many messages the sink has to answer for at this moment."""
        return sum(slot.delivery is not None for slot in self.slots)

    def pause(self, is_paused: IsPaused | None) -> None:
        """From now on begin no delivery of these messages. None: of all again."""
        self._is_paused = is_paused
        if is_paused is not None:
            self._release_waiting("pause", is_paused)

    def drain(self) -> None:
        """Release what has not begun, and let all slots see that the buffer is closed."""
        self._release_waiting("drain")
        self.limits.end()

    async def work(self, slot: Slot) -> None:
        """Deliver until the buffer is closed and empty. `watch` may interrupt a delivery, never the slot."""
        while not (self._buffer.closed and slot.delivery is None):
            with slot.scope:
                await self._deliver_all(slot)
            if slot.scope.cancelled_caught and slot.delivery is not None:
                detail = f"the sink gave no answer within {monotonic() - slot.began_s:.1f} s"
                self._emit(DeliveryStuck(slot.delivery.message, monotonic() - slot.began_s))
                self._conclude(slot, slot.delivery, Unknown("TIMEOUT", detail, timed_out=True))
            slot.scope = anyio.CancelScope()

    async def watch(self) -> None:
        """Give up deliveries that overran the sink's time-out, until cancelled."""
        limit_s = self._settings.deliver_timeout_s + OVERRUN_S
        while True:
            self._watchdog.expect("deliver", OVERDUE_S)
            now_s = monotonic()
            self.limits.pace.tick(now_s)
            for slot in self.slots:
                if slot.delivery is not None and now_s - slot.began_s > limit_s:
                    slot.scope.cancel()
            await anyio.sleep(OVERRUN_S)

    async def _deliver_all(self, slot: Slot) -> None:
        """The hot loop. It returns when the buffer is closed and empty, or when the slot's scope is spent."""
        buffer, sink, scope = self._buffer, self._sink, slot.scope
        while not scope.cancel_called:  # an answer may cross the watchdog, which then must not hit the next delivery
            if self.limits.in_force:
                await self.limits.wait(slot.number)
            now_s = monotonic()
            delivery = buffer.take(now_s)
            while delivery is not None and delivery.expires_s < now_s + self._enough_s:
                # Its lease would not outlast its delivery. It costs no turn of the pace.
                self._carry_out(released(delivery.messages, "lease"))
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
                if cancelled_by_us():  # `watch`, or the end of the drain
                    raise
                outcome = Unknown("CANCELLED", "something inside the sink was cancelled")
            self._conclude(slot, delivery, outcome)

    def _conclude(self, slot: Slot, delivery: Delivery, outcome: Outcome) -> None:
        """Decide about a delivery, then act. Synchronous: a message is never between two states."""
        if isinstance(outcome, Delivered):
            slot.delivery = None
            now_s = monotonic()
            self._hold.delivered += 1
            self.limits.pace.accepted += 1
            if self.limits.in_force:
                self.limits.on_delivered(now_s)
            message = delivery.message
            settlement = Settlement(message, outcome, now_s, message.age_s + now_s - delivery.claimed_s)
            self._settler.settle(settlement)
            if delivery.rest:
                self._carry_out(following(delivery, self._ending, self._is_paused))
            return
        self.limits.on_undelivered(outcome, slot.began_s)
        slot.delivery = None
        if not isinstance(outcome, Unavailable):
            self._settle(delivery, outcome)
        elif self._ending is None:
            self._hold.doubt(delivery, outcome)
        elif self._ending == "hold":
            self.conclude_doubt(delivery, outcome, well=False)
        else:
            self._settle(delivery, tried(outcome, well=False))

    def conclude_doubt(self, delivery: Delivery, outcome: Unavailable, *, well: bool) -> None:
        """Act on a delivery that failed with `Unavailable`, now that a probe has shown whether the sink is well."""
        at_once = not well or (outcome.meaning == "unreached" and not delivery.message.setbacks)
        self._settle(delivery, tried(outcome, well=well), at_once=at_once)
        if well:
            self._buffer.wake_slot()  # for what follows, as this is no slot's doing
        else:
            self._release_waiting(self._ending or "hold")

    @property
    def _ending(self) -> ReleaseReason | None:
        """Why no further delivery begins; None while they do."""
        if self._buffer.closed:
            return "drain"
        return None if self._hold.outcome is None else "hold"

    def _settle(self, delivery: Delivery, outcome: Undelivered, *, at_once: bool = False) -> None:
        self._carry_out(concluded(delivery, outcome, self._settings, self._ending, self._is_paused, at_once=at_once))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        """Hand each action to the part that does it: the settler, or the buffer for what goes on."""
        for action in actions:
            if isinstance(action, Delivery):
                self._buffer.put_first(action)
            else:
                self._settler.settle(action)

    def _release_waiting(self, why: ReleaseReason, which: IsPaused | None = None) -> None:
        """Release what is claimed and not begun: everything, or that of `which` this holds."""
        for delivery in self._buffer.take_out(which):
            self._carry_out(released(delivery.messages, why))
