"""The doorbell. Sources ring it, the relay waits at it; many rings before one look are one ring."""

from __future__ import annotations

import anyio


class Wakeup:
    """A coalescing doorbell for one waiter. A ring is a hint and is never lost: it ends the next wait at once."""

    def __init__(self) -> None:
        self._rung = anyio.Event()
        self.rung_by: str | None = None
        """Who rang since the last wait ended; None when it ended by time."""
        self.attended_by: set[str] = set()
        """The sources that are subscribed now and would ring."""

    def ring(self, source: str) -> None:
        """Wake the waiter. Synchronous, so it may be called from a driver's callback."""
        self.rung_by = source
        self._rung.set()

    async def wait(self, timeout_s: float) -> str | None:
        """Return who rang, or None when `timeout_s` seconds passed in silence. Cancellation loses no ring."""
        with anyio.move_on_after(timeout_s):
            await self._rung.wait()
        rung_by, self.rung_by = self.rung_by, None
        if self._rung.is_set():
            self._rung = anyio.Event()
        return rung_by
