"""Holding: while the sink is unavailable, nothing is claimed, and the sink is probed until it answers.

Only a probe closes the gate. A delivery that fails with `Unavailable` raises a doubt: it is put aside while the sink is
probed, and other deliveries go on. So a message that the sink refuses alone does not stop any other message.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple, Protocol

import anyio

from outbox.loops.cancellation import cancelled_by_us
from outbox.loops.lasting_fault import LastingFault
from outbox.model.errors import place_of
from outbox.model.events import Held, Resumed
from outbox.model.message import Delivery
from outbox.model.sink import Unavailable, Unclear
from outbox.relay.context import RelayContext
from outbox.relay.settings import OVERDUE_S, OVERRUN_S
from outbox.relay.verdict import is_well

_STEADY_S = 5.0
"""A sink that failed again sooner than this after a good probe was not back: probing goes on where it had stopped."""


class Doubt(NamedTuple):
    """A delivery that waits for a probe."""

    delivery: Delivery
    outcome: Unavailable
    delivered: int
    """How many deliveries had succeeded when this one failed."""


class Conclude(Protocol):
    """Decides about a delivery that was put aside."""

    def __call__(self, delivery: Delivery, outcome: Unavailable, *, well: bool) -> None:
        """Decide, given whether the sink is well."""


class Hold:
    """A gate for the claimer. It closes after a bad probe and opens after a good one."""

    def __init__(self, context: RelayContext) -> None:
        self._sink = context.sink
        self._watchdog = context.watchdog
        self._probe_timeout_s = context.settings.deliver_timeout_s + OVERRUN_S
        self._wakeup = context.wakeup
        self._emit = context.emit
        self._pace = context.settings.probe
        self._doubts: list[Doubt] = []
        self._doubted = anyio.Event()
        self._opened = anyio.Event()
        self._opened.set()
        self.outcome: Unavailable | None = None
        """Why the relay holds; None while it does not."""
        self.delivered = 0
        """How many deliveries have succeeded. The deliverer counts them: they prove that the sink takes messages."""

    def doubt(self, delivery: Delivery, outcome: Unavailable) -> None:
        """Put a delivery aside until a probe has shown whether its failure concerns all messages."""
        self._doubts.append(Doubt(delivery, outcome, self.delivered))
        self._doubted.set()

    def take_doubts(self) -> list[Doubt]:
        """Return the deliveries that wait for a probe. They are the caller's to decide about."""
        doubts, self._doubts = self._doubts, []
        return doubts

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    def open(self) -> None:
        """Open the gate for shutdown: a claimer that waits has to see it."""
        self._opened.set()

    async def run(self, conclude: Conclude) -> None:
        """Probe once, then after every doubt and while the gate is closed, until cancelled.

        The first probe reports a sink that cannot deliver when the worker starts, before any message fails.
        """
        if isinstance(outcome := await self._probe(), Unavailable):
            self._close(outcome)
        failures, resumed_s = 0, float("-inf")
        while True:
            if self.outcome is None:
                self._watchdog.forget("probe")
                await self._doubted.wait()
                await self._examine(conclude)
                continue
            began_s = monotonic()
            lasting = LastingFault()
            failures = failures + 1 if began_s - resumed_s < _STEADY_S else 0
            if failures:
                await anyio.sleep(self._pace.delay_s(failures))
            while isinstance(outcome := await self._probe(), Unavailable):
                failures += 1
                self.outcome = outcome
                if held_s := lasting.due():
                    self._emit(Held(outcome, held_s))
                await anyio.sleep(self._pace.delay_s(failures))
            self.outcome = None
            self._opened.set()
            self._wakeup.nudge("resume")
            resumed_s = monotonic()
            self._emit(Resumed(resumed_s - began_s))

    async def _examine(self, conclude: Conclude) -> None:
        """Probe because of the doubts so far, and decide about them."""
        self._doubted = anyio.Event()
        doubts = self.take_doubts()
        if not doubts:
            return
        try:
            answer = await self._probe()
        except anyio.get_cancelled_exc_class():
            self._doubts = doubts + self._doubts
            raise
        well = [is_well(doubt.outcome, answer, delivered=self.delivered > doubt.delivered) for doubt in doubts]
        if not all(well):
            self._close(answer if isinstance(answer, Unavailable) else doubts[well.index(False)].outcome)
        for doubt, one_well in zip(doubts, well, strict=True):
            conclude(doubt.delivery, doubt.outcome, well=one_well)
        if self.outcome is not None:
            for doubt in self.take_doubts():  # those that came during the probe
                conclude(doubt.delivery, doubt.outcome, well=False)

    def _close(self, outcome: Unavailable) -> None:
        self.outcome = outcome
        self._opened = anyio.Event()
        self._emit(Held(outcome))

    async def _probe(self) -> Unavailable | Unclear | None:
        self._watchdog.expect("probe", self._probe_timeout_s + OVERDUE_S)
        try:
            with anyio.fail_after(self._probe_timeout_s):
                return await self._sink.probe()
        except TimeoutError:
            return Unavailable("TIMEOUT", f"the sink's probe gave no answer within {self._probe_timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - a fault of the sink must not stop the relay
            return Unavailable(type(error).__name__, f"the sink's probe raised {place_of(error)}")
        except anyio.get_cancelled_exc_class():
            if cancelled_by_us():
                raise
            return Unavailable("CANCELLED", "something inside the sink's probe was cancelled")
