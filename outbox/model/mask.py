"""The text that stands for a secret where it must not be shown."""

from __future__ import annotations

MASK = "********"
