"""Open-loop load: arrivals by a schedule that does not wait for what came before."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic

import anyio
from anyio.lowlevel import checkpoint

_COARSE_S = 0.002
"""An event loop's timers count whole milliseconds; the last stretch is waited out by letting others run."""

Send = Callable[[float], Coroutine[None, None, None]]
"""One arrival. Takes the time for which it was due, in monotonic seconds."""


def schedule(rate: float, duration_s: float, *sends: Send, seed: int) -> list[tuple[float, Send]]:
    """Random arrivals of every kind at `rate` a second each: seconds from the start, in order.

    If the number of arrivals is given, a Poisson process is this: points spread at random over the time.
    """
    dice = random.Random(seed)  # noqa: S311 - no secret
    count = max(1, round(rate * duration_s))
    arrivals = [(dice.uniform(0, duration_s), send) for send in sends for _ in range(count)]
    return sorted(arrivals, key=lambda arrival: arrival[0])


async def arrive(arrivals: Sequence[tuple[float, Send]], passed: Callable[[float], None]) -> None:
    """Begin every arrival when it is due, whether or not earlier ones are through; return when all are.

    `passed` gets the seconds of the schedule that have passed.
    """
    began_s = monotonic()
    async with anyio.create_task_group() as tasks:
        for after_s, send in arrivals:
            due_s = began_s + after_s
            await _wait_until(due_s)
            tasks.start_soon(send, due_s)
            passed(after_s)


async def _wait_until(due_s: float) -> None:
    await anyio.sleep(max(0.0, due_s - monotonic() - _COARSE_S))
    while monotonic() < due_s:
        await checkpoint()
