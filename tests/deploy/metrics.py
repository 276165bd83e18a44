"""What a worker tells Prometheus."""

from __future__ import annotations

COUNTED = {"outbox_deliveries_total", "outbox_hold_seconds_total", "outbox_lease_losses_total"}
GAUGES = {
    "outbox_backlog_messages",
    "outbox_dead_letters",
    "outbox_dead_tuples",
    "outbox_holding",
    "outbox_loop_lag_seconds",
    "outbox_oldest_ready_age_seconds",
    "outbox_source_up",
    "outbox_xmin_age_transactions",
}
HISTOGRAMS = {"outbox_event_to_start_seconds"}


def known_metrics() -> set[str]:
    """The names of every series."""
    return COUNTED | GAUGES | {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")}
