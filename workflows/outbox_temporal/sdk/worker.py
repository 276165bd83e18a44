"""Runs a Temporal worker inside structured concurrency.

The SDK's worker must be shut down by an awaited call. A cancelled anyio scope cancels every await again, the shutdown's
too, and would leave the worker registered with the core; so its task lives outside the scope and is ended under a
shield.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from temporalio.worker import Worker


@asynccontextmanager
async def serving(worker: Worker, *, on_end: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Have the worker poll while the block runs, and shut it down gracefully at its end, also when cancelled.

    `on_end` is called once the worker polls no more, be it by a fault of its own: then the block's end raises it.
    """
    task = asyncio.create_task(worker.run())
    if on_end is not None:
        task.add_done_callback(lambda _: on_end())
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await worker.shutdown()
            await task
