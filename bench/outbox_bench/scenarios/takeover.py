"""How long the messages of a killed worker wait for another one.

A worker process takes leases and holds them, because its sink never answers. Another worker is idle beside it. The
first is killed with SIGKILL, as by the out-of-memory killer. The time ends when the other one has claimed the last of
its messages. Nearly all of the lease is still left then, so a takeover long before its end is a rescue, by
liveness. The survivor looks every half second: the kill comes at a random moment between two looks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio

from outbox.model.events import Event, SourceReady
from outbox_bench.load.in_process import TOPIC, Watch, connected, empty, fill, relay_at_work
from outbox_bench.load.lab import Lab
from outbox_bench.load.processes import worker_process
from outbox_bench.report.report import Figure, Goal, Measurements, ms
from outbox_bench.scenarios.options import option

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

GOAL = Goal("≤", 2.0)
_LEASED = """
select count(*) as leases,
       extract(epoch from min(leased_until) - clock_timestamp())::float8 as left_s
from outbox.message where lease_token is not null and topic = $1
"""
_LOOK_EVERY_S = 0.05
_CHANCE_S = 1.0
"""Span from which the moment of the kill is drawn: longer than the survivor's pause between two looks."""
_SURPLUS_S = 30.0
"""How long after the end of the lease a takeover is given up as failed."""
_BY_LEASE = "takeovers came when the lease ran out: nothing showed that the worker was dead, as behind a pooler"
_NEAR_S = 1.0
"""Nearer than this to the end of the lease, a takeover was the lease's doing."""


@dataclass(frozen=True, slots=True)
class TakeoverOptions:
    """Durations in seconds."""

    kills: int = option(50, brief=1)
    messages: int = option(50, "Held by the worker that is killed.", brief=5)
    lease_s: float = option(60.0, brief=7.0)
    deliver_timeout_s: float = option(10.0, brief=3.0)
    mode: str = option("auto")


OPTIONS = TakeoverOptions


class _Survivor(Watch):
    """Counts what the other worker claims, and reports when it is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.listening = False
        self.claimed_s: dict[UUID, float] = {}

    def __call__(self, event: Event) -> None:
        self.listening = self.listening or isinstance(event, SourceReady)
        super().__call__(event)
        for claim in self.claims:
            now_s = monotonic()
            self.claimed_s |= {message.message_id: now_s for message in claim.messages}
        self.claims.clear()


async def measure(lab: Lab, options: TakeoverOptions, report: Measurements, show: Callable[[str, float], None]) -> None:
    """Kill one worker after the other."""
    dsn = await lab.outbox()
    waited_s: list[float] = []
    by_lease = 0
    async with connected(dsn) as connection:
        for number in range(options.kills):
            show(f"kill {number + 1} of {options.kills}", number / options.kills)
            await empty(connection)
            found = await _kill(dsn, connection, options, report)
            if found is None:
                continue
            took_s, left_s = found
            waited_s.append(took_s)
            by_lease += took_s > left_s - _NEAR_S
            _report_so_far(report, waited_s, by_lease)
        await empty(connection)


async def _kill(
    dsn: str, connection: Connection, options: TakeoverOptions, report: Measurements
) -> tuple[float, float] | None:
    """Return the seconds from the kill to the last claim, and those that the leases still had; None if none came."""
    survivor = _Survivor()
    times: dict[str, Any] = {
        "lease_s": options.lease_s,
        "deliver_timeout_s": options.deliver_timeout_s,
        "mode": options.mode,
    }
    async with worker_process(dsn, sink="outbox_bench.load.nullsink:hanging_sink", **times) as victim:
        # All in one transaction, so that one claim takes all: then the leases end together.
        await fill(connection, options.messages)
        while (await _leased(connection))[0] < options.messages:  # noqa: ASYNC110 - only the table shows it
            await anyio.sleep(_LOOK_EVERY_S)
        async with relay_at_work(dsn, survivor, **times):
            if options.mode != "poll":
                await survivor.until(lambda: survivor.listening)
            await anyio.sleep(random.uniform(0.0, _CHANCE_S))  # noqa: S311 - no secret
            leases, left_s = await _leased(connection)
            if leases < options.messages:
                report.note("a kill is left out: the worker lost its leases before it was killed")
                return None
            killed_s = monotonic()
            await victim.kill()
            with anyio.move_on_after(left_s + _SURPLUS_S):
                await survivor.until(lambda: len(survivor.claimed_s) >= options.messages)
                report.sampled("kill to claim", ms(at_s - killed_s for at_s in survivor.claimed_s.values()))
                return max(survivor.claimed_s.values()) - killed_s, left_s
    report.note(f"after a kill no worker had taken over {_SURPLUS_S:g} s after the end of the leases")
    return None


async def _leased(connection: Connection) -> tuple[int, float]:
    """How many messages are leased, and for how many seconds yet."""
    row = await connection.fetchrow(_LEASED, TOPIC)
    assert row is not None
    return row["leases"], row["left_s"] or 0.0


def _report_so_far(report: Measurements, waited_s: list[float], by_lease: int) -> None:
    """The figures of all kills so far. Each kill is one run of the first; p99 is one number over all."""
    report.figures.clear()
    report.notes[:] = [note for note in report.notes if _BY_LEASE not in note]
    if by_lease:
        report.note(f"{by_lease} of {len(waited_s)} {_BY_LEASE}")
    report.figures.append(Figure("kill -9 to takeover", "s", list(waited_s), GOAL))
    ranked = sorted(waited_s)
    report.measured("kill -9 to takeover, p99", "s", ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], GOAL)
