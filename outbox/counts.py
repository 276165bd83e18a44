"""Counts what the event stream tells: a subscriber that costs a few steps for each batch, and little for each message.

Plain numbers, written on the event loop and read by `outbox/metrics.py` in other threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from time import monotonic
from typing import Any, get_args

from outbox import events
from outbox.events import Event, Why
from outbox.histogram import MESSAGES, SECONDS, Histogram

_LATENCY_S = attrgetter("latency_s")
_AT_ONCE = attrgetter("message.at_once")
_DELIVERED_S = attrgetter("delivered_s")
_DUPLICATE = attrgetter("outcome.duplicate")
_AGE_S = attrgetter("message.age_s")

OUTCOMES = ("delivered", "failed", "rejected", "throttled", "unknown")
REASONS = ("rejected", "exhausted", "quarantined", "expired", "discarded")
WHYS: tuple[Why, ...] = get_args(Why)
DUTIES = ("control", "heartbeat", "history", "keys", "rescue")
STAGES = ("claim", "deliver", "settle")


class Counts:
    """Everything that is counted of one worker since its start. Subscribe the object itself."""

    def __init__(self) -> None:
        self.event_to_start_s = Histogram(SECONDS)
        """Enqueue to the sink's answer, of messages that did not ask for a later delivery."""
        self.stages_s = {stage: Histogram(SECONDS) for stage in STAGES}
        self.claim_s, self.claim_messages = Histogram(SECONDS), Histogram(MESSAGES)
        self.settle_s, self.settle_messages = Histogram(SECONDS), Histogram(MESSAGES)
        self.deliveries = Counter(dict.fromkeys(OUTCOMES, 0))
        self.duplicates = 0
        self.attempts = 0
        """Failures that counted against a message."""
        self.buried = Counter(dict.fromkeys(REASONS, 0))
        self.released: Counter[str] = Counter(dict.fromkeys(WHYS, 0))
        self.lease_losses = Counter({True: 0, False: 0})
        """By whether the loss is certain."""
        self.rescued = 0
        self.settles_refused = 0
        self.stuck = 0
        self.holds = 0
        self.held_s = 0.0
        """Seconds of holding that are over."""
        self.sources: dict[str, bool] = {}
        """By source that shall run: whether it is subscribed."""
        self.degraded: set[str] = set()
        """Sources that have missed messages and not made it good, subscribed or not."""
        self.sources_lost: Counter[str] = Counter({"listen": 0, "realtime": 0})
        self.sources_degraded: Counter[str] = Counter({"listen": 0, "realtime": 0})
        self.mode_changes = 0
        self.mode: str | None = None
        self.database_losses = 0
        self.duties_failed = Counter(dict.fromkeys(DUTIES, 0))
        self.pace: float | None = None
        self._on: dict[type[Any], Callable[[Any], None]] = {
            events.Claimed: self._claimed,
            events.Completed: self._completed,
            events.Retried: self._retried,
            events.Buried: self._buried,
            events.Released: self._released,
            events.LeaseLost: self._lease_lost,
            events.Rescued: self._rescued,
            events.SettleRefused: self._settle_refused,
            events.DeliveryStuck: self._delivery_stuck,
            events.Held: self._held,
            events.Resumed: self._resumed,
            events.PaceChanged: self._pace_changed,
            events.SourceReady: self._source_ready,
            events.SourceRestored: self._source_restored,
            events.SourceLost: self._source_lost,
            events.SourceDegraded: self._source_degraded,
            events.ModeChanged: self._mode_changed,
            events.DatabaseLost: self._database_lost,
            events.MaintenanceFailed: self._maintenance_failed,
        }

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = self._on.get(type(event))
        if count is not None:
            count(event)

    def _claimed(self, event: events.Claimed) -> None:
        self.claim_s.add(event.took_s)
        self.claim_messages.add(len(event.messages))

    def _completed(self, event: events.Completed) -> None:
        """The hot one. No loop of ours runs over the messages, only those inside of `map` and its like."""
        batch, now_s = event.settlements, monotonic()
        count = len(batch)
        self.settle_s.add(event.took_s)
        self.settle_messages.add(count)
        self.deliveries["delivered"] += count
        self.duplicates += sum(map(_DUPLICATE, batch))
        latencies_s, ages_s = list(map(_LATENCY_S, batch)), list(map(_AGE_S, batch))
        self.stages_s["deliver"].add_all([all_s - age_s for all_s, age_s in zip(latencies_s, ages_s, strict=True)])
        self.stages_s["settle"].add_all([now_s - then_s for then_s in map(_DELIVERED_S, batch)])
        at_once = list(map(_AT_ONCE, batch))
        if not all(at_once):  # what was scheduled has waited as it was meant to
            latencies_s = [s for s, wanted in zip(latencies_s, at_once, strict=True) if wanted]
            ages_s = [s for s, wanted in zip(ages_s, at_once, strict=True) if wanted]
        self.event_to_start_s.add_all(latencies_s)
        self.stages_s["claim"].add_all(ages_s)

    def _retried(self, event: events.Retried) -> None:
        self.deliveries[type(event.outcome).__name__.lower()] += 1
        self.attempts += event.counted

    def _buried(self, event: events.Buried) -> None:
        self.buried[event.reason] += 1
        if event.reason in ("rejected", "exhausted"):  # the others died without a delivery
            self.deliveries[type(event.outcome).__name__.lower()] += 1
            self.attempts += 1

    def _released(self, event: events.Released) -> None:
        self.released[event.why] += len(event.messages)

    def _lease_lost(self, event: events.LeaseLost) -> None:
        self.lease_losses[event.certain] += len(event.messages)

    def _rescued(self, event: events.Rescued) -> None:
        self.rescued += event.count

    def _settle_refused(self, _event: events.SettleRefused) -> None:
        self.settles_refused += 1

    def _delivery_stuck(self, _event: events.DeliveryStuck) -> None:
        self.stuck += 1

    def _held(self, _event: events.Held) -> None:
        self.holds += 1

    def _resumed(self, event: events.Resumed) -> None:
        self.held_s += event.held_s

    def _pace_changed(self, event: events.PaceChanged) -> None:
        self.pace = event.rate

    def _source_ready(self, event: events.SourceReady) -> None:
        self.sources = {**self.sources, event.source: True}

    def _source_restored(self, event: events.SourceRestored) -> None:
        self.degraded = self.degraded - {event.source}

    def _source_lost(self, event: events.SourceLost) -> None:
        self.sources_lost[event.source] += 1
        self.sources = {**self.sources, event.source: False}

    def _source_degraded(self, event: events.SourceDegraded) -> None:
        self.sources_degraded[event.source] += 1
        self.degraded = self.degraded | {event.source}

    def _mode_changed(self, event: events.ModeChanged) -> None:
        self.mode_changes += self.mode is not None
        self.mode = event.mode
        self.sources = {name: self.sources.get(name, False) for name in event.sources}

    def _database_lost(self, _event: events.DatabaseLost) -> None:
        self.database_losses += 1

    def _maintenance_failed(self, event: events.MaintenanceFailed) -> None:
        self.duties_failed[event.duty] += 1
