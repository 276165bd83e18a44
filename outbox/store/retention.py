"""Runs the SQL of retention: history partitions, and everything that is old enough to delete."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import orjson

from outbox.store.base import Statements

_MAINTAIN_TIMEOUT_S = 60.0
_COUNT_TIMEOUT_S = 600.0
"""A day of history may hold many millions of messages, and each is counted."""


class Day(NamedTuple):
    """A daily partition of the history."""

    part: str
    messages: int
    bytes: int | None
    """None if it was dropped by then."""


@dataclass(frozen=True, slots=True)
class Prunable:
    """What has outlived its retention. Field names are those of `maintenance/prunable.sql`."""

    history_before: datetime
    """History settled before that is too old, by whole days."""
    dead_before: datetime | None
    """Dead letters that died before that are too old; None if none are."""
    days: list[Day]
    strays: int
    """Rows of the history that no daily partition took."""
    dead_letters: int
    dedup_keys: int
    workers: int


class Retention(Statements):
    """Statements of maintenance and `outbox prune`. Each may raise DatabaseUnavailable or DatabaseRefused."""

    async def maintain(self, *, days_ahead: int, keep_days: int) -> list[tuple[str, str]]:
        """Create history partitions, then drop old ones, unless another worker is at it; return (what, name) of each.

        Workers that the history does not know any more are forgotten.
        """
        duties = {
            "maintenance/create_history": days_ahead,
            "maintenance/drop_history": keep_days,
            "maintenance/forget_workers": keep_days * 86_400.0,
        }
        done: list[tuple[str, str]] = []
        async with self._errors("maintain"):
            for duty, argument in duties.items():
                rows = await self._pool.fetch_slowly(self._sql(duty), argument, timeout_s=_MAINTAIN_TIMEOUT_S)
                done += [(row["what"], row["name"]) for row in rows]
        return done

    async def forget_keys(self, limit: int) -> int:
        """Forget dedup keys after their window, at most `limit`; return how many."""
        async with self._errors("maintain"):
            return int(await self._pool.fetchval(self._sql("maintenance/forget_keys"), limit))

    async def prunable(self, history_s: float, dead_s: float | None) -> Prunable:
        """Count what is older than this many seconds: of the history, and of the dead letters unless None."""
        async with self._errors("look for what is old"):
            [[text]] = await self._pool.fetch_slowly(
                self._sql("maintenance/prunable"), history_s, dead_s, timeout_s=_COUNT_TIMEOUT_S
            )
        found = orjson.loads(text)
        found["days"] = [Day(**day) for day in found["days"]]
        for name in ("history_before", "dead_before"):
            found[name] = None if found[name] is None else datetime.fromisoformat(found[name])
        return Prunable(**found)

    async def prune_day(self, part: str, before: datetime) -> bool:
        """Drop a day of the history that had ended by then; False if it is gone already.

        Raises DatabaseUnavailable within seconds where a long reader is in the way.
        """
        async with self._errors("drop history"):
            return bool(await self._call("drop_history_partition", part, before))

    async def prune_strays(self, before: datetime, limit: int) -> int:
        """Delete history settled before then that no daily partition took, at most `limit`; return how many."""
        async with self._errors("delete history"):
            return int(await self._call("delete_stray_history", before, limit))

    async def prune_dead_letters(self, before: datetime, limit: int) -> int:
        """Delete dead letters that died before then, at most `limit`; return how many."""
        async with self._errors("delete dead letters"):
            return int(await self._pool.fetchval(self._sql("maintenance/prune_dead_letters"), before, limit))

    async def forget_workers(self, silent_s: float) -> int:
        """Forget workers not heard of for this many seconds, at least a day; return how many."""
        async with self._errors("forget workers"):
            return len(await self._pool.fetch(self._sql("maintenance/forget_workers"), silent_s))
