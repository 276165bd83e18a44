"""A connection that a test abandons names the place where it was made, as the driver does in asyncio's debug mode only."""

from __future__ import annotations

import sys
from typing import Any

import asyncpg

_DEPTH = 15
_make = asyncpg.Connection.__init__


def name_birthplaces() -> None:
    """Record a short stack for each connection: a few microseconds beside the milliseconds of its handshake."""
    asyncpg.Connection.__init__ = _make_and_record  # type: ignore[method-assign]


def _make_and_record(self: Any, *arguments: Any, **more: Any) -> None:
    _make(self, *arguments, **more)
    self._source_traceback = _stack()


def _stack() -> str:
    frame, lines = sys._getframe(2), []  # noqa: SLF001 - `traceback` would read the sources
    while frame and len(lines) < _DEPTH:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return "\n ".join(lines)
