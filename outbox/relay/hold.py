"""Holding: while the sink is unavailable, nothing is claimed, and the sink is probed until it answers."""

from __future__ import annotations

from time import monotonic
from uuid import UUID

import anyio

from outbox.backoff import Backoff
from outbox.events import Emit, Held, Resumed
from outbox.pulse import Pulse
from outbox.relay.settings import OVERDUE_S
from outbox.sink import Sink, Unavailable, Undelivered, Unknown
from outbox.tasks import is_for_us
from outbox.wakeup import Wakeup

_STEADY_S = 5.0
"""A sink that failed again sooner than this after a good probe was not back: probing goes on where it had stopped."""


class Hold:
    """A gate for the claimer. It closes synchronously on the first sign of an outage and opens after a good probe."""

    def __init__(
        self, sink: Sink, wakeup: Wakeup, emit: Emit, pace: Backoff, pulse: Pulse, *, probe_timeout_s: float
    ) -> None:
        self._sink = sink
        self._pulse = pulse
        self._probe_timeout_s = probe_timeout_s
        self._wakeup = wakeup
        self._emit = emit
        self._pace = pace
        self._closed = anyio.Event()
        self._opened = anyio.Event()
        self._opened.set()
        self.outcome: Unavailable | None = None
        """Why the relay holds; None while it does not."""
        self._begun_by: UUID | None = None

    def begin(self, outcome: Unavailable, message_id: UUID | None) -> bool:
        """Close the gate, because of a message or of none; return False if it is closed already."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self._begun_by = message_id
        self._opened = anyio.Event()
        self._closed.set()
        self._emit(Held(outcome))
        return True

    def believe(self, outcome: Undelivered, message_id: UUID) -> Undelivered:
        """The outcome, unless it is the same message that says "unavailable" again after a good probe.

        Then the sink is well and takes everything but this message, which must not stop all others again.
        """
        if isinstance(outcome, Unavailable) and self.outcome is None and self._begun_by == message_id:
            return Unknown(outcome.kind, outcome.detail)
        return outcome

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

    def open(self) -> None:
        """Open the gate, for shutdown: whoever waits must come through to see it."""
        self._opened.set()

    async def run(self) -> None:
        """Probe once, and then whenever the gate is closed, until cancelled.

        So a sink that cannot deliver is told of when the worker starts, and not by the first message, at night.
        """
        if (outcome := await self._probe()) is not None:
            self.begin(outcome, None)
        failures, resumed_s = 0, float("-inf")
        while True:
            self._pulse.forget("probe")
            await self._closed.wait()
            began_s = monotonic()
            failures = failures + 1 if began_s - resumed_s < _STEADY_S else 0
            if failures:
                await anyio.sleep(self._pace.delay_s(failures))
            while (outcome := await self._probe()) is not None:
                failures += 1
                self.outcome = outcome
                await anyio.sleep(self._pace.delay_s(failures))
            self.outcome = None
            self._closed = anyio.Event()
            self._opened.set()
            self._wakeup.nudge("resume")
            resumed_s = monotonic()
            self._emit(Resumed(resumed_s - began_s))

    async def _probe(self) -> Unavailable | None:
        self._pulse.expect("probe", self._probe_timeout_s + OVERDUE_S)
        try:
            with anyio.fail_after(self._probe_timeout_s):
                return await self._sink.probe()
        except Exception as error:  # noqa: BLE001 - a fault of the sink must not stop the relay
            return Unavailable(type(error).__name__, f"the sink's probe raised: {error}")
        except anyio.get_cancelled_exc_class():
            if is_for_us():
                raise
            return Unavailable("CANCELLED", "something inside the sink's probe was cancelled")
