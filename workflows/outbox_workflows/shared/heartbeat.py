"""Signs of life from an activity, by which it learns that it is cancelled, and Temporal that its worker is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

_PER_TIMEOUT = 3


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Send heartbeats while the block runs, where the activity has a heartbeat time-out.

    A cancellation of the activity then cancels the block, and what it had open in the database is rolled back.
    """
    timeout = activity.info().heartbeat_timeout
    if not timeout:
        yield
        return
    # A task group would wrap the block's errors, but their types say whether to try again.
    beats = asyncio.create_task(_beat(timeout.total_seconds() / _PER_TIMEOUT))
    try:
        yield
    finally:
        beats.cancel()


async def _beat(every_s: float) -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(every_s)
