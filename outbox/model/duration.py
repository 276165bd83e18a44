"""The one way to write a duration, for command lines and for files of routes."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
HOW = "write it as 90s, 15m, 2h, 3d, 1w or 1d12h"


def seconds_of(text: str) -> float | None:
    """Seconds from one or several numbers with a unit. None for anything else."""
    lowered = text.lower()
    if not _DURATION.fullmatch(lowered):
        return None
    return sum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(lowered))
