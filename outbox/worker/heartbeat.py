"""The worker's heartbeat: its state in the register, twice a minute and after each change."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from outbox.model.errors import OutboxError
from outbox.model.events import (
    DrainStarted,
    Emit,
    Event,
    Held,
    MaintenanceFailed,
    PresenceLost,
    PresenceShown,
    Resumed,
)

if TYPE_CHECKING:
    from outbox.store.workers import Workers

HEARTBEAT_S = 30.0
_BEATS_APART_S = 0.5
"""However often the state changes."""


class Heartbeat:
    """Beats until cancelled. A beat that fails is reported, and the next one comes at its time."""

    def __init__(
        self,
        workers: Workers,
        emit: Emit,
        *,
        worker_id: int,
        report: Callable[[], tuple[str, dict[str, Any]]],
        own_session: Callable[[], Workers | None],
    ) -> None:
        """`report` returns the worker's state. `own_session` is preferred while there is one: a beat then tests it."""
        self._workers = workers
        self._emit = emit
        self._worker_id = worker_id
        self._report = report
        self._own_session = own_session
        self._news = anyio.Event()

    def beat_soon(self) -> None:
        """Write the worker's state now, because it changed. Synchronous."""
        self._news.set()

    def on_event(self, event: Event) -> None:
        """Beat soon after events that change the worker's state."""
        if isinstance(event, Held | Resumed | DrainStarted | PresenceShown | PresenceLost):
            self.beat_soon()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._news = anyio.Event()
            await self.beat()
            await anyio.sleep(_BEATS_APART_S)
            with anyio.move_on_after(spread(HEARTBEAT_S)):
                await self._news.wait()

    async def beat(self) -> None:
        """Write one heartbeat with the worker's present state."""
        state, detail = self._report()
        try:
            session = self._own_session()
            if session is not None:
                with suppress(OutboxError):
                    await session.heartbeat(self._worker_id, state, detail)
                    return
            await self._workers.heartbeat(self._worker_id, state, detail)
        except OutboxError as error:
            self._emit(MaintenanceFailed("heartbeat", str(error)))


def spread(seconds: float) -> float:
    """About so long: workers that started together drift apart."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
