"""Runs the SQL of the register of workers: who is registered, what it reports, which worker is dead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from outbox.model.errors import DatabaseRefused
from outbox.model.message import Presence
from outbox.store.base import Statements

_RESCUE_TIMEOUT_S = 60.0
_REGISTER_TRIES = 1000
"""Each try that meets a number in use draws the next one."""


class Workers(Statements):
    """Statements on the register. Each method may raise DatabaseUnavailable or DatabaseRefused."""

    async def register(self, name: str, version: str, detail: dict[str, Any]) -> int:
        """Enter this worker process in the register and return its worker id."""
        text = orjson.dumps(detail).decode()
        async with self._errors("register"):
            for _ in range(_REGISTER_TRIES):
                worker_id = await self._pool.fetchval(self._sql("presence/register"), name, version, text)
                if worker_id is not None:
                    return int(worker_id)
        raise DatabaseRefused("register: a sequence was left behind: `outbox migrate` sets it", sqlstate="23505")

    async def heartbeat(self, worker_id: int, state: str, detail: dict[str, Any]) -> None:
        """Say that the worker lives and what it does."""
        async with self._errors("heartbeat"):
            await self._pool.execute(self._sql("presence/heartbeat"), worker_id, state, orjson.dumps(detail).decode())

    async def assert_presence(self, worker_id: int) -> int:
        """Take a lock that shows, for as long as this store's session lasts, that the worker lives; return it."""
        async with self._errors("presence"):
            presence = await self._pool.fetchval(self._sql("presence/assert_presence"), worker_id)
        if presence is None:
            raise DatabaseRefused(f"presence: worker {worker_id} is not registered there", sqlstate="")
        return int(presence)

    async def has_presence(self, worker_id: int, presence: int) -> bool:
        """Say whether others still take the worker for present under this lock."""
        async with self._errors("presence"):
            return bool(await self._pool.fetchval(self._sql("presence/has_presence"), worker_id, presence))

    async def absent(self, worker_id: int, *, grace_s: float) -> set[Presence]:
        """Return which other workers show no presence; after a restart of the server, only after a grace."""
        async with self._errors("rescue"):
            return set(map(tuple, await self._pool.fetch(self._sql("presence/absent"), worker_id, grace_s)))

    async def rescue(self, dead: Sequence[Presence], now: datetime | None = None) -> list[tuple[str, int]]:
        """End the leases of these workers, if they are still absent; return the name and the messages of each.

        `now` is for tests that own the clock.
        """
        workers, presences = [who[0] for who in dead], [who[1] for who in dead]
        async with self._errors("rescue"):
            rows = await self._pool.fetch_slowly(
                self._sql("presence/rescue"), workers, presences, now, timeout_s=_RESCUE_TIMEOUT_S
            )
        return [(row["name"], row["messages"]) for row in rows]
