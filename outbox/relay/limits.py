"""The limits that throttling and time-outs put on deliveries: how many a second (`Pace`), and how many at once."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.model.events import Emit, PaceChanged, SlotsChanged
from outbox.model.sink import Throttled, Unavailable, Undelivered, Unknown
from outbox.relay.pace import ConcurrencyLimit, Pace

if TYPE_CHECKING:
    from outbox.relay.buffer import Buffer


class DeliveryLimits:
    """Learns from outcomes, and lets slots wait. Everything but the waiting is synchronous."""

    def __init__(self, slots: int, buffer: Buffer, emit: Emit, *, in_flight: Callable[[], int]) -> None:
        """`in_flight` counts the deliveries that are out."""
        self._in_flight = in_flight
        self._buffer = buffer
        self._emit = emit
        self._slots = ConcurrencyLimit(slots)
        self._turn = anyio.Lock()
        self._widened = anyio.Event()
        self.pace = Pace()
        self.in_force = False
        """Whether a slot may have to wait."""

    def end(self) -> None:
        """Let the slots that wait see that the buffer is closed."""
        self._widened.set()

    def on_delivered(self, now_s: float) -> None:
        """The sink took a message, while a limit was in force."""
        if self.pace.rate is not None and self.pace.speed_up(now_s):
            self._emit(PaceChanged(None, "no throttling any more"))
        self._widen()
        self._update()

    def on_undelivered(self, outcome: Undelivered, began_s: float) -> None:
        """The sink did not take a message. `began_s` is when the delivery began."""
        if isinstance(outcome, Unknown) and outcome.timed_out:
            self._narrow(began_s)
        elif not isinstance(outcome, Unavailable):
            self._widen()
        if isinstance(outcome, Throttled) and outcome.scope == "sink" and self.pace.slow_down(monotonic()):
            self._emit(PaceChanged(self.pace.rate, f"{outcome.kind}: {outcome.detail}"))
        self._update()

    async def wait(self, slot: int) -> None:
        """Return when the limits let this slot deliver, or the buffer was closed. It holds no message until then."""
        if self.pace.rate is not None:
            async with self._turn:
                if not self._buffer.closed:  # a drain does not wait for turns that nothing needs
                    await anyio.sleep(self.pace.reserve(monotonic()))
        while slot >= self._slots.allowed and not self._buffer.closed:
            self._buffer.wake_slot()  # this slot may not take the delivery that woke it
            await self._widened.wait()

    def _narrow(self, began_s: float) -> None:
        slots = self._slots
        if slots.narrow(began_s, monotonic(), self._in_flight()):
            self._buffer.narrow(slots.allowed)
            self._emit(SlotsChanged(slots.allowed, slots.most))

    def _widen(self) -> None:
        slots = self._slots
        if slots.allowed < slots.most and slots.widen():
            self._buffer.narrow(slots.allowed)
            self._widened.set()
            self._widened = anyio.Event()
            if slots.allowed == slots.most:
                self._emit(SlotsChanged(slots.allowed, slots.most))

    def _update(self) -> None:
        self.in_force = self.pace.rate is not None or self._slots.allowed < self._slots.most
