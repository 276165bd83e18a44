"""The metrics in Prometheus' form: every name, its meaning, and the source of its value.

Values are read on each scrape, and nothing is kept here. `docs/operations.md` has the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox import __version__
from outbox.observability.logs import dropped
from outbox.observability.state import Phase
from outbox.wakeup.selection import MODES

if TYPE_CHECKING:
    from outbox.observability.cached_answer import Answer
    from outbox.observability.counters import EventCounters
    from outbox.observability.histogram import Histogram
    from outbox.observability.state import WorkerState

FACTS = {
    "backlog": ("outbox_backlog_messages", "Messages that are not settled, for any reason."),
    "oldest_ready_s": (
        "outbox_oldest_ready_age_seconds",
        "How long the first message in line has been due; 0 if none is.",
    ),
    "dead_letters": ("outbox_dead_letters", "Dead letters that were not requeued or discarded."),
    "pauses": ("outbox_pauses", "Pauses in force."),
    "oldest_pause_s": ("outbox_oldest_pause_age_seconds", "How long the oldest pause has been in force; 0 if none is."),
    "limits": ("outbox_limits", "Limits in force."),
    "workers": ("outbox_workers", "Live workers: by the lock that each holds, else by their heartbeats."),
    "dead_tuples": ("outbox_dead_tuples", "Dead rows in the message table that vacuum has not taken yet."),
    "message_table_bytes": ("outbox_message_table_bytes", "Size of the message table with its indexes."),
    "xmin_age": ("outbox_xmin_age_transactions", "Transactions since the oldest one that keeps dead rows from vacuum."),
    "notifications": (
        "outbox_notification_queue_ratio",
        "Share of PostgreSQL's queue of notifications that is in use, 0 to 1.",
    ),
    "history_partitions": ("outbox_history_partitions", "Daily partitions of the history."),
    "history_days_ahead": ("outbox_history_days_ahead", "Days from today for which the history has partitions."),
}
"""By key in the answer of `status/facts.sql`: gauges of the whole outbox, which every worker reports alike."""
STATES = ("pending", "processing", "scheduled", "waiting", "retrying")
_TOO_OLD_S = 60.0
"""Facts that are older than this are left out: an absent value is better than a wrong one."""


class Metrics(Collector):
    """Everything of one worker, for a registry."""

    def __init__(
        self,
        counts: EventCounters,
        state: WorkerState,
        facts: Callable[[], Answer[dict[str, Any] | None] | None],
        *,
        slots: int,
    ) -> None:
        """`facts` looks for the latest answer of that statement, bounded. `slots`: deliveries at once, at most."""
        self._counts = counts
        self._state = state
        self._facts = facts
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        yield from self._durations()
        yield from self._messages()
        yield from self._worker()
        yield from self._sources()
        yield from self._whole_outbox()

    def _durations(self) -> Iterator[Metric]:
        counts = self._counts
        yield _histogram(
            "outbox_event_to_start_seconds",
            "From the enqueue to the sink's answer, of delivered messages that were not scheduled for later.",
            {(): counts.event_to_start_s},
        )
        yield _histogram(
            "outbox_stage_seconds",
            "The same in stages: enqueue to claim, claim to the sink's answer, that answer to settled.",
            {(stage,): histogram for stage, histogram in counts.stages_s.items()},
            "stage",
        )
        yield _histogram("outbox_claim_seconds", "Round trips of claims that brought messages.", {(): counts.claim_s})
        yield _histogram("outbox_claim_batch_messages", "Messages that a claim brought.", {(): counts.claim_messages})
        yield _histogram("outbox_settle_seconds", "Round trips of statements that complete.", {(): counts.settle_s})
        yield _histogram(
            "outbox_settle_batch_messages", "Messages that a statement completed.", {(): counts.settle_messages}
        )

    def _messages(self) -> Iterator[Metric]:
        counts = self._counts
        yield _counters("outbox_deliveries", "Deliveries by what the sink answered.", "outcome", counts.deliveries)
        yield _counter(
            "outbox_duplicates", "Deliveries that found their workflow id in use by another start.", counts.duplicates
        )
        yield _counter("outbox_attempts", "Failures that counted against a message.", counts.attempts)
        yield _counters(
            "outbox_buried", "Messages that became dead letters; discarded ones none.", "reason", counts.buried
        )
        yield _counters("outbox_released", "Messages released without being counted.", "why", counts.released)
        losses = {str(certain).lower(): number for certain, number in counts.lease_losses.items()}
        yield _counters(
            "outbox_lease_losses",
            "Leases that another worker had taken before the message was settled.",
            "certain",
            losses,
        )
        yield _counter("outbox_rescued", "Messages taken back from dead workers.", counts.rescued)
        yield _counter(
            "outbox_settle_refusals", "Messages that the database refused to settle.", counts.settles_refused
        )
        yield _counter(
            "outbox_stuck_deliveries", "Deliveries given up because the sink overran its time.", counts.stuck
        )

    def _worker(self) -> Iterator[Metric]:
        counts, state = self._counts, self._state
        yield _counter(
            "outbox_log_lines_dropped", "Log lines lost because standard error was not read in time.", dropped()
        )
        yield _gauges("outbox_build_info", "The worker's version.", "version", {__version__: 1})
        yield _gauges(
            "outbox_worker_state", "1 for the worker's state.", "state", _one_of(get_args(Phase), state.phase)
        )
        yield _gauge("outbox_in_flight_messages", "Deliveries that wait for the sink's answer.", state.in_flight)
        yield _gauge("outbox_delivery_slots", "Deliveries at once, at most.", self._slots)
        yield _gauge("outbox_outstanding_messages", "Messages claimed and not settled yet.", state.outstanding)
        since_s = state.held_since_s
        held_s = counts.held_s + (0.0 if since_s is None else monotonic() - since_s)
        yield _gauge("outbox_holding", "1 while the sink is unavailable and nothing is claimed.", since_s is not None)
        yield _counter("outbox_holds", "Times that holding began.", counts.holds)
        yield _counter("outbox_hold_seconds", "Time spent holding, the present hold included.", held_s)
        pace = inf if counts.pace is None else counts.pace
        yield _gauge("outbox_pace_messages_per_second", "Speed limit while the sink throttles, else +Inf.", pace)
        yield _gauge("outbox_database_up", "0 while a loop cannot reach the database.", state.database_lost is None)
        yield _counter("outbox_database_losses", "Times that a loop lost the database.", counts.database_losses)
        yield _gauge("outbox_presence_shown", "1 while other workers can see whether this one is alive.", state.present)
        yield _counters("outbox_duty_failures", "Failures of slow duties.", "duty", counts.duties_failed)
        yield _gauge(
            "outbox_loop_lag_seconds", "The longest delay of the event loop within a minute.", state.watchdog.lag_s
        )
        yield _gauge("outbox_loops_overdue", "Loops that have not reported in time.", len(state.watchdog.overdue_s()))

    def _sources(self) -> Iterator[Metric]:
        counts = self._counts
        up = {name: there and name not in counts.degraded for name, there in counts.sources.items()}
        yield _gauges(
            "outbox_source_up", "1 for a source that is subscribed and trusted, of those that run.", "source", up
        )
        yield _counters("outbox_source_losses", "Times that a source was lost.", "source", counts.sources_lost)
        yield _counters(
            "outbox_source_degradations", "Times that a source missed messages.", "source", counts.sources_degraded
        )
        yield _gauges("outbox_mode", "1 for the requested mode.", "mode", _one_of(MODES, counts.mode))
        yield _counter("outbox_mode_changes", "Changes of what wakes the worker.", counts.mode_changes)

    def _whole_outbox(self) -> Iterator[Metric]:
        answer = self._facts()
        if answer is None or answer.value is None or answer.age_s > _TOO_OLD_S:
            return
        facts = answer.value
        for key, (name, help_text) in FACTS.items():
            yield _gauge(name, help_text, facts[key])
        states = {state: facts["states"][state] for state in STATES}
        yield _gauges("outbox_messages", "Messages by state, as `outbox status` counts them.", "state", states)
        yield _gauge("outbox_facts_age_seconds", "Age of the figures for the whole outbox.", answer.age_s)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def _counters(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, help_text: str, by_labels: Mapping[tuple[str, ...], Histogram], *labels: str) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=labels)
    for values, histogram in by_labels.items():
        buckets = [("+Inf" if bound == inf else f"{bound:g}", float(count)) for bound, count in histogram.buckets()]
        family.add_metric(values, buckets, sum_value=histogram.total)
    return family


def _one_of(names: tuple[str, ...], now: str | None) -> dict[str, float]:
    return {name: float(name == now) for name in names}
