"""How long this process was kept from running: what a test's own time limits must not be blamed on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio

_LOOK_EVERY_S = 0.05


class Stalls:
    """Seconds for which a task that wanted to run could not, all together."""

    def __init__(self) -> None:
        self.lost_s = 0.0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            began_s = monotonic()
            await anyio.sleep(_LOOK_EVERY_S)
            self.lost_s += max(0.0, monotonic() - began_s - 2 * _LOOK_EVERY_S)


@asynccontextmanager
async def stalls() -> AsyncIterator[Stalls]:
    """Watch for the block."""
    seen = Stalls()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(seen.watch)
        yield seen
        tasks.cancel_scope.cancel()
