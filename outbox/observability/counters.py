"""Counts the events of the stream: a subscriber that costs a few steps for each batch, and little for each message.

Plain numbers, written on the event loop and read by `outbox/observability/metrics.py` in other threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import compress
from operator import attrgetter, itemgetter, sub
from time import monotonic
from typing import Any, get_args

from outbox.model import events
from outbox.model.dead_letter_reason import BURIAL_REASONS
from outbox.model.events import Event, ReleaseReason
from outbox.model.message import Message
from outbox.observability.histogram import MESSAGES, SECONDS, Histogram

_AGE_S = itemgetter(Message._fields.index("age_s"))
_AT_ONCE = itemgetter(Message._fields.index("at_once"))
_DUPLICATE = attrgetter("duplicate")

OUTCOMES = ("delivered", "failed", "rejected", "throttled", "unknown")
WHYS: tuple[ReleaseReason, ...] = get_args(ReleaseReason)
DUTIES = ("control", "heartbeat", "history", "keys", "rescue")
STAGES = ("claim", "deliver", "settle")


class EventCounters:
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
        self.buried: Counter[str] = Counter(dict.fromkeys(BURIAL_REASONS, 0))
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
        """By source that has to run: whether it is subscribed."""
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
        count, now_s = len(event.settlements), monotonic()
        messages, outcomes, delivered_s, latencies = zip(*event.settlements, strict=True)
        latencies_s, ages_s = list(latencies), list(map(_AGE_S, messages))
        self.settle_s.add(event.took_s)
        self.settle_messages.add(count)
        self.deliveries["delivered"] += count
        self.duplicates += sum(map(_DUPLICATE, outcomes))
        self.stages_s["deliver"].add_all(list(map(sub, latencies_s, ages_s)))
        self.stages_s["settle"].add_all(list(map(now_s.__sub__, delivered_s)))
        if not all(map(_AT_ONCE, messages)):  # what was scheduled has waited as it was meant to
            wanted = list(map(_AT_ONCE, messages))
            latencies_s, ages_s = list(compress(latencies_s, wanted)), list(compress(ages_s, wanted))
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
        self.rescued += event.leases

    def _settle_refused(self, _event: events.SettleRefused) -> None:
        self.settles_refused += 1

    def _delivery_stuck(self, _event: events.DeliveryStuck) -> None:
        self.stuck += 1

    def _held(self, event: events.Held) -> None:
        self.holds += not event.held_s

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

    def _database_lost(self, event: events.DatabaseLost) -> None:
        self.database_losses += not event.lost_s

    def _maintenance_failed(self, event: events.MaintenanceFailed) -> None:
        self.duties_failed[event.duty] += 1
