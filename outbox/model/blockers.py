"""Sessions that keep others from the outbox's tables, in words, and what ends them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NAMED = 3
"""Blockers that one line names."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session, or a prepared transaction, that holds a lock on a table or waits for one ahead of all others."""

    who: str
    """Its process, program, user, state and age."""
    lock: str
    """Which lock, on which table."""
    cure: str
    """SQL that ends it."""
    age_s: float | None
    """Of its transaction; None if this login may not see it."""
    certain: bool
    """Whether it keeps all others out; else it may hold rows."""

    def __str__(self) -> str:
        """Everything in a line."""
        return f"{self.who} {self.lock}; to end it: {self.cure}"


def read(rows: Sequence[dict[str, Any]]) -> list[Blocker]:
    """The result of `status/blockers.sql`, the first to be ended first."""
    return list(map(_read, rows))


def line(blockers: Sequence[Blocker]) -> str:
    """Several in one line."""
    more = len(blockers) - _NAMED
    return "; ".join(map(str, blockers[:_NAMED])) + (f"; and {more} more" if more > 0 else "")


def _read(row: dict[str, Any]) -> Blocker:
    age_s = row["age_s"]
    age = "its age is hidden: grant pg_read_all_stats" if age_s is None else f"transaction open for {age_s:.0f} s"
    doing = "waits for" if row["waits"] else "holds"
    if row["prepared"] is not None:
        gid = str(row["prepared"])
        who = f"prepared transaction {gid!r} (user {row['user']}, {age})"
        cure = "rollback prepared '{}';".format(gid.replace("'", "''"))
    else:
        program = row["application"] or "a program without a name"
        state = f"{row['state']}, " if row["state"] else ""
        who = f"process {row['pid']} ({program}, user {row['user']}, {state}{age})"
        cure = f"select pg_terminate_backend({row['pid']});"
    may = "" if row["certain"] else "may have locked rows: it "
    return Blocker(who, f"{may}{doing} {row['mode']} on {row['table']}", cure, age_s, row["certain"])
