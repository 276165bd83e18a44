"""The numbers that shape a relay, in one frozen value. `outbox.config.settings` fills it from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outbox.loops.backoff import Backoff

LEASE_MARGIN_S = 2.0
"""A delivery is begun only if the lease outlasts its time-out by this much: time to settle it."""
OVERRUN_S = 1.0
"""How far a sink may overrun its time-out before a delivery is given up. Also how often that is looked at."""
OVERDUE_S = 60.0
"""A loop not heard from for so long beyond what it meant to wait is dead: no statement or retry takes longer."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """All durations are seconds."""

    concurrency: int = 64
    """Deliveries in flight at once, at most."""
    prefetch: int = 2048
    """Messages claimed ahead of their delivery, at most. How many really are follows the sink's speed."""
    batch: int = 500
    """Messages in one claim or settle statement, at most."""
    held_bytes: int = 32 * 2**20
    """Bytes of messages above 4 KiB that a worker holds at once: about so many, for the last may go beyond it."""
    lease_s: float = 60.0
    deliver_timeout_s: float = 10.0
    poll_interval_s: float = 10.0
    """The idle claim's period while a trusted source would ring: the guarantee behind every wake-up source."""
    fallback_interval_s: float = 1.0
    """The same while there is no such source."""
    max_attempts: int = 20
    """Counted failures of a message before it becomes a dead letter."""
    keyed_failure: Literal["bury", "wait"] = "bury"
    """Whether a message with a key may become a dead letter so that its key goes on, or is retried for ever."""
    series: int = 8
    """Messages of one key that one claim may lease, to be delivered one after the other without another claim."""
    suspect_after: int = 2
    """Claims without any outcome after which a message is delivered with nothing else in flight."""
    max_deliveries: int = 5
    """Claims without any outcome after which a message is quarantined as a killer of workers."""
    retry: Backoff = Backoff(base_s=1.0, cap_s=300.0)
    probe: Backoff = Backoff(base_s=0.1, cap_s=1.0)
    """Pace of probing an unavailable sink; its cap bounds how late the relay resumes."""
    reconnect: Backoff = Backoff(base_s=0.1, cap_s=5.0)
    drain_timeout_s: float = 30.0
    """How long a shutdown waits for deliveries in flight."""
    settle_timeout_s: float = 5.0
    """How long a shutdown then waits for the database to take what became of them."""
