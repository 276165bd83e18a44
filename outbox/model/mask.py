"""The text that is shown in place of a secret."""

from __future__ import annotations

MASK = "********"
