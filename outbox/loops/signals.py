"""Stopping on signals: a worker drains on the first, commands finish their batch."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
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

    def heard() -> bool:
        if worker.stopping:
            return False
        worker.stop()
        return True

    async with on_signals(heard, *early.signals()):
        if early.asked():
            worker.stop()
        yield
    early.ignore()


@dataclass(slots=True)
class Stop:
    """Whether a signal asked the work to end after its current step."""

    asked: bool = False


@asynccontextmanager
async def stopping(on_first: Callable[[], None] = lambda: None) -> AsyncIterator[Stop]:
    """Watch for SIGINT and SIGTERM while the block runs. The first asks it to end, the second cancels it."""
    stop = Stop()

    def heard() -> bool:
        if stop.asked:
            return False
        stop.asked = True
        on_first()
        return True

    async with on_signals(heard):
        yield stop


@asynccontextmanager
async def cancelled_on_signal(on_signal: Callable[[], None]) -> AsyncIterator[None]:
    """Cancel the block on the first SIGINT or SIGTERM, after `on_signal`. The next one ends the process."""

    def heard() -> bool:
        on_signal()
        return False

    async with on_signals(heard):
        yield


@asynccontextmanager
async def on_signals(heard: Callable[[], bool], *numbers: signal.Signals) -> AsyncIterator[None]:
    """Call `heard` for each signal while the block runs; cancel the block when it returns False.

    Without `numbers` it listens to SIGTERM and SIGINT. After the cancellation the signals have their defaults again.
    """
    async with anyio.create_task_group() as tasks:

        async def watch(*, task_status: TaskStatus[None]) -> None:
            with anyio.open_signal_receiver(*(numbers or (signal.SIGTERM, signal.SIGINT))) as signals:
                task_status.started()
                async for _ in signals:
                    if not heard():
                        tasks.cancel_scope.cancel()
                        return

        await tasks.start(watch)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
