"""The outbox at a glance, within a bound: what cannot be read in time is left out, and said to be missing."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any

import orjson

from outbox.model.blockers import line
from outbox.model.errors import DatabaseReadOnly, DatabaseUnavailable
from outbox.postgres.errors import translated_errors
from outbox.store.base import Statements

_PAGES_READ = 2000
"""Of a table: 16 MiB, some ten milliseconds from memory."""
_WITHIN_S = 5.0
_LEAST_S = 0.1
_PARTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "workers": ("status/workers", ()),
    "rules": ("status/rules", ()),
    "messages": ("status/messages", (_PAGES_READ,)),
    "dead letters": ("status/dead_letters", (_PAGES_READ,)),
    "completed": ("status/completed", (_PAGES_READ,)),
    "errors": ("status/errors", (_PAGES_READ,)),
}
"""By name: a statement and its arguments. First what is quick and what no lock on messages holds up."""


class Overview(Statements):
    """Statements about the whole outbox for people and monitors: approximate if there is much."""

    async def status(
        self, within_s: float = _WITHIN_S, *, missing: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, Any]:
        """What `outbox status` shows. `missing` is what could not be read before; the answer's, by part, says why.

        Raises DatabaseUnavailable only if nothing can be had.
        """
        end_s, report, missing = monotonic() + within_s, dict[str, Any](), dict(missing)
        because: DatabaseUnavailable | None = None
        for part, (statement, arguments) in _PARTS.items():
            last = part == "errors"
            left_s = max(_LEAST_S, (end_s - monotonic()) * (1.0 if last else 0.5))
            try:
                with translated_errors("status"):
                    rows = await self._pool.fetch_slowly(self._sql(statement), *arguments, timeout_s=left_s)
                    report |= orjson.loads(rows[0][0])
            except DatabaseUnavailable as error:
                missing[part], because = str(error).removeprefix("status: "), error
        if because is not None and not report:
            raise because
        found = await self.blockers() if missing else []
        held = report.pop("held_by_pauses", {})
        for pause in report.get("pauses", ()):
            pause["holds"] = held.get(str(pause.pop("rule_id")))
        return {**report, "missing": missing, "blocked_by": line(found) or None}

    async def workers(self) -> list[dict[str, Any]]:
        """The workers' part of the status alone."""
        async with self._errors("workers"):
            found: list[dict[str, Any]] = orjson.loads(await self._pool.fetchval(self._sql("status/workers")))[
                "workers"
            ]
        return found

    async def facts(self) -> dict[str, Any]:
        """The result of `status/facts.sql`, for monitors: approximate if there is much, so that it costs little."""
        async with self._errors("facts"):
            found: dict[str, Any] = orjson.loads(await self._pool.fetchval(self._sql("status/facts"), _PAGES_READ))
        return found

    async def applied_migrations(self) -> list[tuple[int, str, str, int | None]]:
        """Version, name, checksum of each, and what it serves. Raises DatabaseReadOnly where nothing can be written."""
        async with self._errors("check"):
            row = await self._pool.fetchrow(self._sql("status/applied_migrations"))
            assert row is not None
            if row["read_only"]:
                raise DatabaseReadOnly("check: this server takes no writes, it is read-only")
        return [tuple(line) for line in orjson.loads(row["migrations"])]


def is_living(worker: dict[str, Any], silent_after_s: float) -> bool:
    """Whether a worker of the status lives: by the lock that its session holds, else by its last word."""
    lives = worker["lives"]
    return bool(worker["seen_s_ago"] < silent_after_s if lives is None else lives)
