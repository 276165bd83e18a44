"""Tries a statement again for ever. Reports each kind of loss of the database once, and the end of the loss."""

from __future__ import annotations

from time import monotonic

import anyio

from outbox.loops.backoff import Backoff
from outbox.loops.lasting_fault import LastingFault
from outbox.model.errors import OutboxError
from outbox.model.events import DatabaseLost, DatabaseRestored, Emit


class DatabaseRetry:
    """Paces one loop's retries of one kind of statement."""

    def __init__(self, doing: str, emit: Emit, backoff: Backoff) -> None:
        self._doing = doing
        self._emit = emit
        self._backoff = backoff
        self._failures = 0
        self._reported: set[type[OutboxError]] = set()
        self._lost_s = 0.0
        self._lasting = LastingFault()

    async def failed(self, error: OutboxError) -> None:
        """Note a failure and wait before the next try."""
        if not self._failures:
            self._lost_s = monotonic()
            self._reported.clear()
            self._lasting.begin()
        if type(error) not in self._reported:  # a restart may end in a refusal, which people have to repair
            self._reported.add(type(error))
            self._emit(DatabaseLost(self._doing, str(error)))
        elif lost_s := self._lasting.due():
            self._emit(DatabaseLost(self._doing, str(error), lost_s))
        self._failures += 1
        await anyio.sleep(self._backoff.delay_s(self._failures))

    def succeeded(self) -> None:
        """Note a success."""
        if self._failures:
            self._failures = 0
            self._emit(DatabaseRestored(self._doing, monotonic() - self._lost_s))
