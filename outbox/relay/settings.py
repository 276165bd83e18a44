"""The settings that shape a relay, each declared once: default, bounds and description.

`outbox.config.settings` reads them from the environment together with the others. All durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from outbox.loops.backoff import Backoff

LEASE_MARGIN_S = 2.0
"""A delivery is begun only if the lease outlasts its time-out by this much: time to settle it."""
OVERRUN_S = 1.0
"""How far a sink may overrun its time-out before a delivery is given up. Also how often that is looked at."""
OVERDUE_S = 60.0
"""A loop not heard from for so long beyond what it meant to wait is dead: no statement or retry takes longer."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class RelaySettings(BaseModel):
    """How a relay claims, delivers and settles. The descriptions are those of `docs/configuration.md`."""

    model_config = ConfigDict(frozen=True)

    held_bytes: ClassVar[int] = 32 * 2**20
    """Bytes of messages above 4 KiB that a worker holds at once, about: the last one may go beyond it."""
    settle_timeout_s: ClassVar[float] = 5.0
    """How long a shutdown waits for the database to take the last outcomes."""
    probe: ClassVar[Backoff] = Backoff(base_s=0.1, cap_s=1.0)
    """Pace of probing an unavailable sink; its cap bounds how late the relay resumes."""
    reconnect: ClassVar[Backoff] = Backoff(base_s=0.1, cap_s=5.0)

    concurrency: Count = Field(64, description="Deliveries in flight at once, at most.")
    prefetch: int = Field(2048, ge=0, le=100_000, description="Messages claimed ahead of their delivery, at most.")
    batch: Count = Field(500, description="Messages in one claim or settle statement, at most.")
    lease_s: Seconds = Field(60.0, description="How long a claim holds a message.")
    deliver_timeout_s: Seconds = Field(
        10.0, description="How long one delivery may take before its outcome counts as unknown."
    )
    poll_interval_s: Seconds = Field(
        10.0,
        description="How often an idle worker looks for messages although a trusted source would ring.",
    )
    fallback_interval_s: Seconds = Field(
        1.0,
        description="How often an idle worker looks while no source is subscribed and trusted.",
    )
    keyed_failure: Literal["bury", "wait"] = Field(
        "bury",
        description="What becomes of a message with a key that fails for good: bury it and go on, or wait and retry.",
    )
    series: Count = Field(
        8,
        description="Messages of one key that are claimed together, at most, and delivered one after the other.",
    )
    max_attempts: Count = Field(20, description="Counted failures of a message before it becomes a dead letter.")
    suspect_after: Count = Field(
        2,
        description="Claims without any outcome after which a message is delivered with nothing else in flight.",
    )
    max_deliveries: Count = Field(5, description="Claims without any outcome after which a message is quarantined.")
    retry_base_s: Seconds = Field(1.0, description="Delay before the first retry; it doubles each time.")
    retry_cap_s: Seconds = Field(300.0, description="Longest delay between two retries.")
    drain_timeout_s: Seconds = Field(30.0, description="How long a shutdown waits for deliveries in flight.")

    @property
    def retry(self) -> Backoff:
        """Pauses between the deliveries of one message."""
        return Backoff(self.retry_base_s, self.retry_cap_s)
