"""Examines what blocks a worker at this moment: other sessions' locks, and pauses that were perhaps forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from outbox.doctor.runner import MissingPrerequisite
from outbox.model.blockers import read
from outbox.model.errors import DatabaseRefused
from outbox.model.finding import Check, Finding

if TYPE_CHECKING:
    from outbox.doctor.runner import Prerequisites

_NO_RIGHT = "42501"
"""SQLSTATE insufficient_privilege."""

LOCKS = Check("locks", ("warning", "fault"))
PAUSES = Check("pauses", ("warning",))
CHECKS = (LOCKS, PAUSES)
_MOMENT_S = 2.0
"""A lock held for less than this is ordinary work."""
FORGOTTEN_S = 3600.0
"""As the alert OutboxPauseForgotten."""


async def examine_locks(prerequisites: Prerequisites) -> list[Finding]:
    """Raises OutboxError, MissingPrerequisite if this login may not look."""
    try:
        return list(judged_locks(await prerequisites.questions().lock_facts()))
    except DatabaseRefused as error:
        if error.sqlstate == _NO_RIGHT:
            raise MissingPrerequisite("this login lacks rights: see grants") from error
        raise


def judged_locks(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Who keeps workers and producers from the tables."""
    found = [blocker for blocker in read(rows) if blocker.age_s is None or blocker.age_s > _MOMENT_S]
    for blocker in found:
        judge = LOCKS.fault if blocker.certain else LOCKS.warning
        yield judge(f"{blocker.who} {blocker.lock}", blocker.cure)
    if not found:
        yield LOCKS.good("no session keeps others from the tables")


async def examine_pauses(prerequisites: Prerequisites) -> list[Finding]:
    """Raises OutboxError."""
    return list(judged_pauses((await prerequisites.outbox().rule_facts())["pauses"]))


def judged_pauses(pauses: list[dict[str, Any]]) -> Iterator[Finding]:
    """Which pauses have been in force for long."""
    forgotten = [pause for pause in pauses if pause["for_s"] > FORGOTTEN_S]
    for pause in forgotten:
        kind, _, name = pause["name"].partition(" ")
        hours = f"{pause['for_s'] / 3600:.0f} h"
        option = f" --{kind} '{name}'" if name else ""
        yield PAUSES.warning(
            f"{pause['name']} has been paused for {hours}, by {pause['paused_by']}: nothing of it is delivered",
            f"outbox resume{option}  # `outbox status` says how many messages it holds",
        )
    if not forgotten:
        yield PAUSES.good(f"none for longer than {FORGOTTEN_S / 60:.0f} min")
