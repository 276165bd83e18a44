"""When to look at the database without a notification, and how soon after one. Pure: nothing waits here.

Polling is quick while there is work, and slows down when there is none. A notification wakes all workers, but only one
gets the message. Workers that often come too late wait longer before they look. So a hundred workers do not all run a
statement for each message, and a single worker looks at once.
"""

from __future__ import annotations

import random

_FASTEST_S = 0.05
"""Pause after a claim that brought something: the next message probably comes soon."""
_SLOWER = 2.0
_JITTER = 0.2
"""Share of a pause by which workers that started together drift apart."""
_LATE_TOLERATED = 3
"""Notifications in a row that may find nothing: one claim often brings the message of the next one, too."""
_LATE_STEP_S = 0.002
_LATE_GROWTH = 1.3
_LATEST_S = 0.25
"""The longest time over which many workers spread their looks after one notification."""


class Polling:
    """The rhythm of one claimer. Durations are seconds."""

    def __init__(self, *, poll_interval_s: float, fallback_interval_s: float) -> None:
        self._poll_interval_s = poll_interval_s
        self._fallback_interval_s = fallback_interval_s
        self._pause_s = min(_FASTEST_S, fallback_interval_s)
        self._spread_s = 0.0
        self._late = 0

    def pause_s(self, *, has_trusted_source: bool, found: bool) -> float:
        """How long to wait for a notification: longer after each claim that found nothing, up to the interval."""
        interval_s = self._poll_interval_s if has_trusted_source else self._fallback_interval_s
        self._pause_s = min(_FASTEST_S if found else self._pause_s * _SLOWER, interval_s)
        return self._pause_s * random.uniform(1.0 - _JITTER, 1.0)  # noqa: S311 - no secret

    def crowd_delay_s(self) -> float:
        """How long to wait after a notification: 0 if this worker usually finds something."""
        return random.uniform(0.0, self._spread_s)  # noqa: S311 - no secret

    def note_wakeup(self, *, found: bool) -> None:
        """Note whether the look after a notification found something."""
        if found:
            self._late = 0
            self._spread_s = self._spread_s / 2 if self._spread_s > _LATE_STEP_S else 0.0
        else:
            self._late += 1
            if self._late > _LATE_TOLERATED:
                self._spread_s = min(_LATEST_S, max(_LATE_STEP_S, self._spread_s * _LATE_GROWTH))
