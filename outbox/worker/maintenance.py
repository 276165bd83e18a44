"""Slow duties beside the relay: the history's partitions, old dedup keys, and messages that no trigger called."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from outbox.model.errors import OutboxError
from outbox.model.events import Emit, MaintenanceFailed
from outbox.worker.heartbeat import spread

if TYPE_CHECKING:
    from outbox.store.messages import Store
    from outbox.store.retention import Retention

_MAINTAIN_EVERY_S = 3600.0
_CALL_EVERY_S = 60.0
_DAYS_AHEAD = 3
_KEYS_AT_ONCE = 10_000


class Maintenance:
    """Runs each duty at its time until cancelled. A duty that fails is reported and tried again at its next time."""

    def __init__(self, store: Store, retention: Retention, emit: Emit, *, history_days: int) -> None:
        self._store = store
        self._retention = retention
        self._emit = emit
        self._history_days = history_days
        self._after_key = ""

    async def run(self) -> None:
        """Maintain once an hour, call sleepers once a minute, until cancelled."""
        maintained_s = float("-inf")
        while True:
            if monotonic() - maintained_s > _MAINTAIN_EVERY_S:
                maintained_s = monotonic()
                await self._maintain()
            await self._call_sleepers()
            await anyio.sleep(spread(_CALL_EVERY_S))

    async def _maintain(self) -> None:
        try:
            await self._retention.maintain(days_ahead=_DAYS_AHEAD, keep_days=self._history_days)
            while await self._retention.forget_keys(_KEYS_AT_ONCE) == _KEYS_AT_ONCE:
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
