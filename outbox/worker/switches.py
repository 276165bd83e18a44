"""Reads the switches and the pauses, so that they reach every running worker within a second.

Where notifications arrive, a switch brings its own; elsewhere the table is looked at more than once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio

from outbox.model.errors import OutboxError
from outbox.model.events import Emit, MaintenanceFailed

if TYPE_CHECKING:
    from outbox.model.message import Pause
    from outbox.store.rules import Rules

_ANNOUNCED_S = 120.0
_UNANNOUNCED_S = 0.7


class Switches:
    """Hands the switches to its subscribers when they may have changed. `announced`: whether notifications arrive."""

    def __init__(self, rules: Rules, emit: Emit, *, announced: Callable[[], bool]) -> None:
        self._rules = rules
        self._emit = emit
        self._subscribers: list[Callable[[dict[str, Any]], None]] = []
        self._on_pauses: list[Callable[[list[Pause]], None]] = []
        self._announced = announced
        self._asked = anyio.Event()

    def subscribe(self, apply: Callable[[dict[str, Any]], None]) -> None:
        """Have `apply` called with every switch by name after each reading."""
        self._subscribers.append(apply)

    def on_pauses(self, apply: Callable[[list[Pause]], None]) -> None:
        """Have `apply` called with everything that is paused after each reading."""
        self._on_pauses.append(apply)

    def look(self) -> None:
        """Read the table soon. Synchronous, so it may be called from a driver's callback."""
        self._asked.set()

    async def read(self) -> None:
        """Read the table once. Raises OutboxError."""
        switches, pauses = await self._rules.control()
        if "copy" in switches:
            await self._rules.look_home()  # restored while connections stayed open: from now on it is paused
        for apply in self._subscribers:
            apply(switches)
        for report in self._on_pauses:
            report(pauses)

    async def run(self) -> None:
        """Read until cancelled. An outage of the database is the claimer's to report, a refusal is ours."""
        refused = False
        read_s = monotonic()
        while True:
            with anyio.move_on_after(_UNANNOUNCED_S):
                await self._asked.wait()
            if not self._asked.is_set() and self._announced() and monotonic() - read_s < _ANNOUNCED_S:
                continue
            self._asked = anyio.Event()
            read_s = monotonic()
            try:
                await self.read()
                refused = False
            except OutboxError as error:
                if not refused:
                    self._emit(MaintenanceFailed("control", str(error)))
                refused = True
