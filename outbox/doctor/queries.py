"""What the doctor asks PostgreSQL. Judging the answers is its other modules' business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from outbox.model.sink import Demand, Way
from outbox.store.base import Statements

if TYPE_CHECKING:
    from outbox.store.migrations import Line

_PAGES_READ = 2000
"""As the metrics: 16 MiB of a table."""
Facts = dict[str, Any]


class DoctorQueries(Statements):
    """Questions to the server and to one outbox schema. Each may raise DatabaseUnavailable or DatabaseRefused."""

    async def server_facts(self) -> Facts:
        """About the server, independent of the database's contents."""
        return await self._object("doctor/server")

    async def grant_facts(self, wanted: Sequence[tuple[str, str]], functions: Sequence[str]) -> Facts:
        """About the user's rights, where these are wanted: on tables, each with a privilege, and to call functions."""
        tables, privileges = [table for table, _ in wanted], [privilege for _, privilege in wanted]
        return await self._object("doctor/grants", self._schema, tables, privileges, list(functions))

    async def housekeeping_facts(self) -> Facts:
        """About vacuum, and who holds it up."""
        return await self._object("doctor/housekeeping")

    async def sequence_facts(self) -> list[str]:
        """Which sequences give numbers that are in use."""
        async with self._errors("doctor"):
            found = orjson.loads(await self._pool.fetchval(self._sql("doctor/sequences"), _PAGES_READ))
        assert isinstance(found, list)
        return found

    async def wakeup_facts(self, role: str) -> Facts:
        """About triggers and publications, for a Realtime key of this role."""
        return await self._object("doctor/wakeups", role)

    async def broadcast_facts(self) -> Facts:
        """About what becomes of a broadcast: one is tried and rolled back."""
        return await self._object("doctor/broadcast")

    async def lock_facts(self) -> list[Facts]:
        """About sessions that keep others from the tables."""
        async with self._errors("doctor"):
            found: list[Facts] = orjson.loads(await self._pool.fetchval(self._sql("status/blockers")))
        return found

    async def rule_facts(self) -> Facts:
        """About pauses and limits."""
        return await self._object("status/rules")

    async def home_fault(self) -> str | None:
        """Why this database is a copy, if it is."""
        async with self._errors("doctor"):
            fault: str | None = await self._call("home_fault")
        return fault

    async def demand(self, history_s: float) -> Demand:
        """What a sink will be asked for."""
        found = await self._object("doctor/demand", _PAGES_READ)
        recent = tuple((namespace, queue) for namespace, queue in found["recent"])
        return Demand(tuple(Way(*way) for way in found["ways"]), dict(found["dead"]), history_s, recent)

    async def register(self) -> list[Line]:
        """The migrations that were applied, also on a server that takes no writes."""
        async with self._errors("read the schema version"):
            row = await self._pool.fetchrow(self._sql("status/applied_migrations"))
        assert row is not None
        return [tuple(line) for line in orjson.loads(row["migrations"])]

    async def _object(self, name: str, *arguments: object) -> Facts:
        async with self._errors("doctor"):
            found = orjson.loads(await self._pool.fetchval(self._sql(name), *arguments))
        assert isinstance(found, dict)
        return found
