"""Stopping on signals: a worker drains on the first, commands finish their batch."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from outbox.loops import early_signals as early


class Stoppable(Protocol):
    """What signals stop."""

    @property
    def stopping(self) -> bool:
        """Whether the shutdown has begun."""

    def stop(self) -> None:
        """Begin the shutdown."""


@asynccontextmanager
async def stop_on_signals(worker: Stoppable) -> AsyncIterator[None]:
    """Stop the worker on the first SIGTERM, SIGINT or SIGHUP, also one that came before; cancel the block on the next.

    After the block of a process that has listened from its start, signals are ignored.
    """
    async with anyio.create_task_group() as tasks:

        async def watch(*, task_status: TaskStatus[None]) -> None:
            with anyio.open_signal_receiver(*early.signals()) as signals:
                task_status.started()
                async for _ in signals:
                    if worker.stopping:
                        tasks.cancel_scope.cancel()
                        return
                    worker.stop()

        await tasks.start(watch)
        if early.asked():
            worker.stop()
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
    early.ignore()


@dataclass(slots=True)
class Stop:
    """Whether somebody wants the work to end after what it is doing."""

    asked: bool = False


@asynccontextmanager
async def stopping() -> AsyncIterator[Stop]:
    """Watch for SIGINT and SIGTERM while the block runs: the first asks it to end, a second one cancels it."""
    stop = Stop()
    async with anyio.create_task_group() as tasks:

        async def watch(*, task_status: TaskStatus[None]) -> None:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    if stop.asked:
                        tasks.cancel_scope.cancel()
                    stop.asked = True

        await tasks.start(watch)
        yield stop
        tasks.cancel_scope.cancel()
