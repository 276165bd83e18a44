"""Holding: while the sink is unavailable, nothing is claimed, and the sink is probed until it answers.

Only a probe closes the gate. A delivery that fails with `Unavailable` raises a doubt: it is put aside while the sink is
probed, and other deliveries go on. So a message that the sink refuses alone does not stop any other message.
"""

from __future__ import annotations

from time import monotonic
from typing import NamedTuple, Protocol

import anyio

from outbox.loops.backoff import Backoff
from outbox.loops.cancellation import cancelled_by_us
from outbox.loops.lasting_fault import LastingFault
from outbox.loops.watchdog import Watchdog
from outbox.model.errors import place_of
from outbox.model.events import Emit, Held, Resumed
from outbox.model.message import Delivery
from outbox.model.sink import Sink, Unavailable, Unclear
from outbox.relay.settings import OVERDUE_S
from outbox.relay.verdict import is_well
from outbox.wakeup.doorbell import Wakeup

_STEADY_S = 5.0
"""A sink that failed again sooner than this after a good probe was not back: probing goes on where it had stopped."""


class _Doubt(NamedTuple):
    """A delivery that waits for a probe."""

    delivery: Delivery
    outcome: Unavailable
    delivered: int
    """How many deliveries had succeeded when this one failed."""


class Conclude(Protocol):
    """What the hold asks of the deliverer."""

    def __call__(self, delivery: Delivery, outcome: Unavailable, *, well: bool) -> None:
        """Decide about a delivery that was put aside, given whether the sink is well."""


class Hold:
    """A gate for the claimer. It closes after a bad probe and opens after a good one."""

    def __init__(
        self, sink: Sink, wakeup: Wakeup, emit: Emit, pace: Backoff, watchdog: Watchdog, *, probe_timeout_s: float
    ) -> None:
        self._sink = sink
        self._watchdog = watchdog
        self._probe_timeout_s = probe_timeout_s
        self._wakeup = wakeup
        self._emit = emit
        self._pace = pace
        self._doubts: list[_Doubt] = []
        self._doubted = anyio.Event()
        self._opened = anyio.Event()
        self._opened.set()
        self.outcome: Unavailable | None = None
        """Why the relay holds; None while it does not."""
        self.delivered = 0
        """How many deliveries have succeeded. The deliverer counts them: they prove that the sink takes messages."""
        self.conclude: Conclude
        """Set by the deliverer."""

    @property
    def doubtful(self) -> int:
        """How many deliveries wait for a probe."""
        return len(self._doubts)

    def doubt(self, delivery: Delivery, outcome: Unavailable) -> None:
        """Put a delivery aside until a probe has shown whether its failure concerns all messages."""
        if self.outcome is not None:
            self.conclude(delivery, outcome, well=False)
        else:
            self._doubts.append(_Doubt(delivery, outcome, self.delivered))
            self._doubted.set()

    def dismiss(self) -> None:
        """Decide about everything that waits for a probe without one, for shutdown: it may be released."""
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            self.conclude(doubt.delivery, doubt.outcome, well=False)

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    def open(self) -> None:
        """Open the gate, for shutdown: whatever waits must come through to see it."""
        self._opened.set()

    async def run(self) -> None:
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
                await self._examine()
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

    async def _examine(self) -> None:
        """Probe because of the doubts so far, and decide about them."""
        self._doubted = anyio.Event()
        doubts, self._doubts = self._doubts, []
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
            self.conclude(doubt.delivery, doubt.outcome, well=one_well)
        if self.outcome is not None:
            self.dismiss()  # what came meanwhile

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
