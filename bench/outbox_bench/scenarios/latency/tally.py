"""What one run of the latency benchmark saw, and what a report makes of it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from outbox_bench.report.percentiles import percentile
from outbox_bench.report.report import Goal, ms
from outbox_bench.scenarios.latency import clocks
from outbox_bench.scenarios.latency.clocks import Offset

if TYPE_CHECKING:
    from outbox_bench.load.executions import Times
    from outbox_bench.report.report import Measurements
    from outbox_bench.scenarios.latency.observed import Sightings

_AS_FAST_AS_DIRECT = Goal("≤", 1.10)
_PUBLISHED_MS = 359.0
"""From event to start, what a worker of this kind on Supabase Realtime measured of itself before there was this one."""


@dataclass(frozen=True, slots=True)
class Event:
    """One message. Monotonic seconds: when it was due, and just before and just after its insert."""

    workflow_id: str
    due_s: float
    began_s: float
    committed_s: float
    message_id: UUID


@dataclass(frozen=True, slots=True)
class Direct:
    """One direct start. Monotonic seconds: when it was due, and just before and just after the call."""

    workflow_id: str
    due_s: float
    began_s: float
    acknowledged_s: float


@dataclass(slots=True)
class LatencyMeasurement:
    """One mode in one run."""

    mode: str
    rate: float
    database: Offset | None
    events: list[Event] = field(default_factory=list)
    directs: list[Direct] = field(default_factory=list)
    alone_events_s: list[float] = field(default_factory=list)
    alone_directs_s: list[float] = field(default_factory=list)
    executions: dict[str, Times] = field(default_factory=dict)
    wall_minus_monotonic_s: float = 0.0

    def fill(self, report: Measurements, seen: Sightings) -> None:
        """Add samples and figures of this run to the report."""
        self._fill_scheduled(report, seen)
        self._fill_stages(report, seen)
        self._fill_alone(report)
        self._fill_offsets(report)
        for trouble, count in seen.troubles.items():
            report.notes.append(f"mode {self.mode}: {count} × {trouble}")
        if missing := sum(event.message_id not in seen.acknowledged for event in self.events):
            report.notes.append(f"mode {self.mode}: {missing} of {len(self.events)} messages were not delivered")

    def _fill_scheduled(self, report: Measurements, seen: Sightings) -> None:
        """From the moment for which it was due to Temporal's acknowledgement: late senders hide nothing."""
        group = f"{self.mode}, {self.rate:g}/s, from when it was due"
        got = seen.acknowledged
        events = ms(got[e.message_id] - e.due_s for e in self.events if e.message_id in got)
        directs = ms(direct.acknowledged_s - direct.due_s for direct in self.directs)
        report.sampled(f"{group}: event → start acknowledged", events)
        report.sampled(f"{group}: direct start", directs)
        sent: list[Event | Direct] = [*self.events, *self.directs]
        report.sampled(f"{group}: sent late by", ms(each.began_s - each.due_s for each in sent))
        if not (events and directs):
            return
        goal = _AS_FAST_AS_DIRECT if self.mode == "listen" else None
        report.measured(f"{self.mode}: direct start, p50", "ms", percentile(directs, 50))
        report.measured(f"{self.mode}: event → start, p50", "ms", percentile(events, 50))
        for percent in (50, 99):
            ratio = percentile(events, percent) / percentile(directs, percent)
            report.measured(f"{self.mode}: event ÷ direct at {self.rate:g}/s, p{percent}", "×", ratio, goal)
        if self.mode != "poll":
            times = _PUBLISHED_MS / percentile(events, 50)
            report.measured(f"{self.mode}: {_PUBLISHED_MS:g} ms ÷ event → start, p50", "×", times, Goal("≥", 50))

    def _fill_stages(self, report: Measurements, seen: Sightings) -> None:
        """From before the insert, and from the answer to the commit, to every later moment that was seen."""
        before, after = f"{self.mode}, from before the insert", f"{self.mode}, from the commit"
        report.sampled(f"{before}: committed", ms(event.committed_s - event.began_s for event in self.events))
        for name, moments in self._moments(seen).items():
            pairs = [(event, moments[event.message_id]) for event in self.events if event.message_id in moments]
            if pairs:
                report.sampled(f"{before}: {name}", ms(moment - event.began_s for event, moment in pairs))
                since = ms(moment - event.committed_s for event, moment in pairs)
                report.sampled(f"{after}: {name}", since)
                if name == "hint received" and self.mode == "listen":
                    report.measured("listen: commit → hint, p50", "ms", percentile(since, 50), Goal("≤", 1.0))
        direct = f"{self.mode}, direct start"
        report.sampled(f"{direct}: acknowledged", ms(each.acknowledged_s - each.began_s for each in self.directs))
        for name, times in self._by_temporal().items():
            known = [(each, times[each.workflow_id]) for each in self.directs if each.workflow_id in times]
            if known:
                report.sampled(f"{direct}: {name}", ms(moment - each.began_s for each, moment in known))

    def _moments(self, seen: Sightings) -> dict[str, dict[UUID, float]]:
        """Every stage's moments by message, in the order of the stages."""
        by_temporal = {
            name: {e.message_id: times[e.workflow_id] for e in self.events if e.workflow_id in times}
            for name, times in self._by_temporal().items()
        }
        return {
            "hint received": self._hints(seen),
            "claimed": seen.claimed,
            "execution started": by_temporal["execution started"],
            "start acknowledged": seen.acknowledged,
            "first workflow task": by_temporal["first workflow task"],
            "settled": seen.settled,
        }

    def _hints(self, seen: Sightings) -> dict[UUID, float]:
        """For each message the first ring after its insert began, unless it was claimed before any ring."""
        found = {}
        for event in self.events:
            place = bisect_left(seen.hints, event.began_s)
            if place < len(seen.hints) and seen.hints[place] <= seen.claimed.get(event.message_id, 0.0):
                found[event.message_id] = seen.hints[place]
        return found

    def _by_temporal(self) -> dict[str, dict[str, float]]:
        """Temporal's own times by workflow id, on our monotonic clock."""
        clock = self._temporal_clock()
        shift_s = self.wall_minus_monotonic_s + (clock.certain_s if clock else 0.0)
        known = self.executions.items()
        return {
            "execution started": {workflow_id: times.started_s - shift_s for workflow_id, times in known},
            "first workflow task": {
                workflow_id: times.task_s - shift_s for workflow_id, times in known if times.task_s is not None
            },
        }

    def _temporal_clock(self) -> Offset | None:
        """Temporal's clock against ours: an execution starts while its direct start is under way."""
        wall_s = self.wall_minus_monotonic_s
        return clocks.offset(
            (each.began_s + wall_s, self.executions[each.workflow_id].started_s, each.acknowledged_s + wall_s)
            for each in self.directs
            if each.workflow_id in self.executions
        )

    def _fill_alone(self, report: Measurements) -> None:
        """One at a time."""
        if not self.alone_events_s:
            return
        events, directs = ms(self.alone_events_s), ms(self.alone_directs_s)
        report.sampled(f"{self.mode}, one at a time: event → start acknowledged", events)
        report.sampled(f"{self.mode}, one at a time: direct start", directs)
        for percent in (50, 99):
            ratio = percentile(events, percent) / percentile(directs, percent)
            goal = _AS_FAST_AS_DIRECT if self.mode == "listen" else None
            report.measured(f"{self.mode}: event ÷ direct one at a time, p{percent}", "×", ratio, goal)

    def _fill_offsets(self, report: Measurements) -> None:
        """How far the other clocks were from ours, and how surely that is known."""
        for name, offset in (("database", self.database), ("Temporal", self._temporal_clock())):
            if offset is not None:
                report.settings[f"clock of {name}"] = str(offset)
