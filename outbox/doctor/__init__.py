"""Says whether it is safe to start a worker, and the cure of each fault: one finding for each thing examined.

Nothing is concluded from a setting that can be tried or looked up, and nothing keeps a later check from its turn. It
changes nothing; what it sends is a notification that wakes no worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outbox.doctor import housekeeping, schema, server, standstill, wakeups
from outbox.doctor import settings as setup
from outbox.doctor import sink as delivery
from outbox.doctor.runner import Prerequisites, section
from outbox.model.finding import Finding
from outbox.model.sink import examiner
from outbox.postgres.pool import open_pool

if TYPE_CHECKING:
    from outbox.config.settings import LoadedSettings, Settings
    from outbox.model.finding import Check
    from outbox.model.sink import SinkFactory

CHECKS: tuple[Check, ...] = (
    *setup.CHECKS,
    *server.CHECKS,
    *schema.CHECKS,
    *housekeeping.CHECKS,
    *standstill.CHECKS,
    *wakeups.CHECKS,
    *delivery.CHECKS,
)
"""Every check of the core's own."""
_POOL_SIZE = 2
"""LISTEN is proved by a probe over another connection, while a question is on its way."""
_ANSWER_TIMEOUT_S = 30.0
_LOCK_TIMEOUT_S = 2.0
"""What is locked for longer is a finding, not a reason to wait."""


@dataclass(frozen=True, slots=True)
class Group:
    """What was found of one part."""

    title: str
    findings: list[Finding]


def is_safe(groups: Iterable[Group]) -> bool:
    """Whether a worker may be started. Warnings are for later; what may be a fault and was not tried counts as one."""
    return all(finding.grade != "fault" for group in groups for finding in group.findings)


async def examine(
    reading: LoadedSettings, sink: SinkFactory | None, faults: Sequence[str] = (), sink_faults: Sequence[str] = ()
) -> list[Group]:
    """Examine everything. `faults` are the settings', `sink_faults` what the sink says of its own. Raises nothing."""
    settings, prerequisites = reading.settings, Prerequisites(reading.settings.schema_name)
    of_settings = faults if examiner(sink) else (*faults, *sink_faults)
    groups = [Group("settings", list(setup.examine_settings(reading, of_settings)))]
    async with AsyncExitStack() as stack:
        found = await section(server.WAY, lambda: server.examine_way(settings, prerequisites))
        found += await section((server.REACHABILITY,), lambda: _connect(settings, prerequisites, stack))
        known = {finding.what for finding in found}
        of_server = await section(server.SERVER, lambda: server.examine_server(prerequisites))
        found += [finding for finding in of_server if finding.what not in known]
        found += await section((server.POOLER,), lambda: server.examine_pooler(settings, prerequisites))
        found += await section((standstill.LOCKS,), lambda: standstill.examine_locks(prerequisites))
        groups.append(Group("database", found))
        found = await section(schema.VERSIONED, lambda: schema.examine_schema(prerequisites))
        prerequisites.no_schema = _unusable(found)
        found += await section((schema.HOME,), lambda: schema.examine_home(prerequisites))
        groups.append(Group("schema", found))
        found = await section(housekeeping.CHECKS, lambda: housekeeping.examine_housekeeping(prerequisites))
        found += await section((standstill.PAUSES,), lambda: standstill.examine_pauses(prerequisites))
        groups.append(Group("housekeeping", found))
        found = await section(wakeups.ALWAYS, lambda: wakeups.examine_wakeups(settings, prerequisites))
        groups.append(Group("wake-ups", found))
        found = await delivery.examine_sink(sink, settings, prerequisites)
        groups.append(Group(f"sink {settings.sink}", found))
    return groups


async def _connect(settings: Settings, prerequisites: Prerequisites, stack: AsyncExitStack) -> list[Finding]:
    """Give the ground its connections, if there is a way. Raises OutboxError where they cannot be had all the same."""
    if prerequisites.way:
        pool = open_pool(
            settings.dsn,
            size=_POOL_SIZE,
            application_name="outbox doctor",
            statement_timeout_s=_ANSWER_TIMEOUT_S,
            for_people=True,
            lock_timeout_s=_LOCK_TIMEOUT_S,
        )
        prerequisites.pool = await stack.enter_async_context(pool)
    return []


def _unusable(found: Iterable[Finding]) -> str | None:
    """Why no statement of this version can be expected to work, if so."""
    version = next(finding for finding in found if finding.what == schema.SCHEMA.what)
    return None if version.grade == "good" else version.reason_untried or version.detail
