"""Distinguishes a cancellation of the running task from a stray one that escaped from other code."""

from __future__ import annotations

from math import inf

import anyio


def cancelled_by_us() -> bool:
    """Whether a scope around the caller was cancelled. Ask while handling the exception, and raise it again if so."""
    return anyio.current_effective_deadline() == -inf
