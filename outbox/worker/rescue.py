"""Takes the messages of dead workers back. A worker is dead when its presence has ended (`outbox/worker/presence.py`).

Absence must be seen twice, and not right after trouble that all workers may share: after a restart or a failover all
sessions are gone, and all come back after a while. A live worker that is taken for dead loses only leases; the fencing
token ensures the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.model.errors import OutboxError
from outbox.model.events import Emit, MaintenanceFailed, Rescued

if TYPE_CHECKING:
    from outbox.model.message import Presence
    from outbox.store.workers import Workers
    from outbox.wakeup.doorbell import Wakeup

_EVERY_S = 0.3
"""How often at most. A claimer with nothing to do looks, and asks us to, a little less often."""
_CONFIRMED_S = 1.0
"""How long a worker must be absent."""
_GRACE_S = 15.0
"""How long after trouble with the database no worker counts as dead: time to notice a dead connection and connect."""
_AGAIN_S = 5.0


class Rescue:
    """Looks for dead workers on request. `stable_s` is how long this worker's own way to the database has held."""

    def __init__(
        self, workers: Workers, wakeup: Wakeup, emit: Emit, *, worker_id: int, stable_s: Callable[[], float]
    ) -> None:
        self._workers = workers
        self._wakeup = wakeup
        self._emit = emit
        self._worker_id = worker_id
        self._stable_s = stable_s
        self._asked = anyio.Event()
        self._absent: dict[Presence, float] = {}
        """Who is absent, and when that was first seen."""

    def look(self) -> None:
        """Look soon, because others hold messages. Synchronous."""
        self._asked.set()

    async def run(self) -> None:
        """Look and rescue until cancelled. Nothing is asked of the database unless `look` was called."""
        while True:
            if not self._absent:
                await self._asked.wait()
            self._asked = anyio.Event()
            try:
                await self._check()
            except OutboxError as error:
                self._absent = {}
                self._emit(MaintenanceFailed("rescue", str(error)))
                await anyio.sleep(_AGAIN_S)
            await anyio.sleep(_CONFIRMED_S if self._absent else _EVERY_S)

    async def _check(self) -> None:
        absent = await self._workers.absent(self._worker_id, grace_s=_GRACE_S)
        now_s = monotonic()
        self._absent = {who: self._absent.get(who, now_s) for who in absent}
        dead = [who for who, since_s in self._absent.items() if now_s - since_s >= _CONFIRMED_S]
        if dead and self._stable_s() > _GRACE_S:
            for name, messages in await self._workers.rescue(dead):
                if messages:
                    self._emit(Rescued(name, messages))
                    self._wakeup.nudge("rescue")
            self._absent = {who: since_s for who, since_s in self._absent.items() if who not in dead}
