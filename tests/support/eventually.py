"""Waiting for something in another process, which sends no events here: look again, often, for a bounded time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")
LOOK_EVERY_S = 0.05


async def eventually(look: Callable[[], Awaitable[T]], until: Callable[[T], bool], *, timeout_s: float = 30.0) -> T:
    """Return the first answer of `look` that satisfies `until`; fail with the last one when the time is up."""
    answer = await look()
    with anyio.move_on_after(timeout_s):
        while not until(answer):
            await anyio.sleep(LOOK_EVERY_S)
            answer = await look()
        return answer
    raise AssertionError(f"not within {timeout_s} s; the last answer was {answer!r}")
