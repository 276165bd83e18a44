"""Slow duties beside the relay: the worker's heartbeat, the history's partitions, and keys that nobody called."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

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
    from outbox.store.messages import Store

HEARTBEAT_S = 30.0
_BEATS_APART_S = 0.5
"""However often the state changes."""
_MAINTAIN_EVERY_S = 3600.0
_CALL_EVERY_S = 60.0
_DAYS_AHEAD = 3
_KEYS_AT_ONCE = 10_000


class Maintenance:
    """Runs every duty at its turn until cancelled. A duty that fails is told of and tried again at its next turn."""

    def __init__(
        self,
        store: Store,
        emit: Emit,
        *,
        worker_id: int,
        history_days: int,
        report: Callable[[], tuple[str, dict[str, Any]]],
        session: Callable[[], Store | None] = lambda: None,
    ) -> None:
        """`session` tells over which session of the worker's own to beat, if any: so each beat proves it."""
        self._store = store
        self._emit = emit
        self._worker_id = worker_id
        self._history_days = history_days
        self._report = report
        self._session = session
        self._news = anyio.Event()
        self._after_key = ""

    def beat_soon(self) -> None:
        """Have the worker's state written now, because it changed. Synchronous."""
        self._news.set()

    def on_event(self, event: Event) -> None:
        """Learn from the event stream that the worker's state has changed."""
        if isinstance(event, Held | Resumed | DrainStarted | PresenceShown | PresenceLost):
            self.beat_soon()

    async def run(self) -> None:
        """Beat, and maintain once an hour, until cancelled. No duty that takes long delays a beat."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work)
            while True:
                self._news = anyio.Event()
                await self.beat()
                await anyio.sleep(_BEATS_APART_S)
                with anyio.move_on_after(_spread(HEARTBEAT_S)):
                    await self._news.wait()

    async def _work(self) -> None:
        maintained_s = float("-inf")
        while True:
            if monotonic() - maintained_s > _MAINTAIN_EVERY_S:
                maintained_s = monotonic()
                await self._maintain()
            await self._call_sleepers()
            await anyio.sleep(_spread(_CALL_EVERY_S))

    async def beat(self) -> None:
        """Write one heartbeat with the worker's present state."""
        state, detail = self._report()
        try:
            session = self._session()
            if session is not None:
                with suppress(OutboxError):
                    await session.heartbeat(self._worker_id, state, detail)
                    return
            await self._store.heartbeat(self._worker_id, state, detail)
        except OutboxError as error:
            self._emit(MaintenanceFailed("heartbeat", str(error)))

    async def _maintain(self) -> None:
        try:
            await self._store.maintain(days_ahead=_DAYS_AHEAD, keep_days=self._history_days)
            while await self._store.forget_keys(_KEYS_AT_ONCE) == _KEYS_AT_ONCE:
                await anyio.lowlevel.checkpoint()
        except OutboxError as error:
            self._emit(MaintenanceFailed("history", str(error)))

    async def _call_sleepers(self) -> None:
        """Look at each key once, some at a time. After a failure the next turn goes on where this one stopped."""
        try:
            while True:
                began_s = monotonic()
                _, last = await self._store.call_sleepers(self._after_key)
                self._after_key = last or ""
                if last is None:
                    return
                await anyio.sleep(monotonic() - began_s)
        except OutboxError as error:
            self._emit(MaintenanceFailed("keys", str(error)))


def _spread(seconds: float) -> float:
    """About so long: workers that started together drift apart."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
