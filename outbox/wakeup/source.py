"""What every source has in common: it is never given up, and its state is always known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

import anyio

from outbox.loops.cancellation import cancelled_by_us
from outbox.model.errors import OutboxError, clean
from outbox.model.events import Emit, SourceLost, SourceReady

if TYPE_CHECKING:
    from outbox.loops.backoff import Backoff
    from outbox.wakeup.doorbell import Wakeup


class SupervisedSource(ABC):
    """Runs one session after another until cancelled, and reports to the doorbell when one is subscribed or lost."""

    name: ClassVar[str]
    grace_s: ClassVar[float]
    """Seconds from a commit within which this source rings."""
    steady_s: ClassVar[float]
    """A session that lasted this many seconds was sound: the next one is tried without delay again."""

    def __init__(self, wakeup: Wakeup, emit: Emit) -> None:
        self._wakeup = wakeup
        self._emit = emit
        self.error: str | None = None
        """Why it cannot hear, while it cannot."""

    async def run(self) -> None:
        """Listen until cancelled."""
        failures = 0
        try:
            while True:
                began_s = monotonic()
                try:
                    await self._session()
                except OutboxError as error:
                    reason = error
                except Exception as error:  # noqa: BLE001 - no fault of a source may stop the relay
                    reason = OutboxError(f"{self.name}: {type(error).__name__}: {error}")
                except anyio.get_cancelled_exc_class():
                    if cancelled_by_us():
                        raise
                    reason = OutboxError(f"{self.name}: something inside was cancelled")
                else:
                    reason = OutboxError(f"{self.name}: the session ended")
                failures = 1 if monotonic() - began_s > self.steady_s else failures + 1
                delay_s = self._pace(reason).delay_s(failures)
                self._lost(clean(str(reason)), delay_s)
                await anyio.sleep(delay_s)
        finally:
            self._wakeup.unsubscribed(self.name)

    @abstractmethod
    async def _session(self) -> None:
        """Connect, subscribe, call `_ready`, and stay. Raises OutboxError with the reason when that ends."""

    @abstractmethod
    def _pace(self, error: OutboxError) -> Backoff:
        """How fast to try again after this error."""

    def _ready(self) -> None:
        """Subscribed, or subscribed again: the relay must look for earlier messages."""
        if self._wakeup.has(self.name):
            self._wakeup.nudge(self.name)
            return
        self.error = None
        self._wakeup.subscribed(self.name, grace_s=self.grace_s)
        self._emit(SourceReady(self.name))

    def _lost(self, error: str, delay_s: float) -> None:
        """Report each new reason once, and make the relay poll from now on."""
        self._wakeup.unsubscribed(self.name)
        if self.error != error:
            self.error = error
            self._emit(SourceLost(self.name, error, delay_s))
