"""Runs the SQL of rules (pauses and limits), of switches, and of the home of the outbox."""

from __future__ import annotations

from typing import Any

import orjson

from outbox.model.message import Pause
from outbox.store.base import Statements


class Rules(Statements):
    """Statements on what holds for all workers. Each method may raise DatabaseUnavailable or DatabaseRefused."""

    async def control(self) -> tuple[dict[str, Any], list[Pause]]:
        """Return the switches of the control table, and what is paused."""
        async with self._errors("control"):
            row = await self._pool.fetchrow(self._sql("rules/control"))
        assert row is not None
        return orjson.loads(row["switches"]), [Pause(*pause) for pause in orjson.loads(row["pauses"])]

    async def set_switch(self, name: str, value: object) -> None:
        """Set a switch for every worker; None removes it."""
        async with self._errors("control"):
            text = None if value is None else orjson.dumps(value).decode()
            await self._call("set_switch", name, text)

    async def pause(self, what: Pause) -> None:
        """Stop the delivery of a topic or a key, or of everything."""
        async with self._errors("pause"):
            await self._call("pause", what.topic, what.key)

    async def resume(self, what: Pause) -> bool:
        """End a pause; return whether there was one."""
        async with self._errors("resume"):
            return bool(await self._call("resume", what.topic, what.key))

    async def limit_topic(self, topic: str, rate: float | None, burst: int | None) -> bool:
        """Have at most `rate` messages a second claimed of a topic, None: any. Return whether it had a limit."""
        async with self._errors("limit"):
            return bool(await self._call("limit_topic", topic, rate, burst))

    async def look_home(self) -> None:
        """Pause everything, if this database is a copy."""
        async with self._errors("look home"):
            await self._call("look_home")

    async def adopt(self) -> bool:
        """Have this database be the outbox, and no copy; return whether it was one."""
        async with self._errors("adopt"):
            return bool(await self._call("adopt"))
