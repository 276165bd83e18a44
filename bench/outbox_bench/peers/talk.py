"""How a contender talks with the benchmark: commands are lines on stdin, answers are JSON lines on stdout.

Every contender is started with the database's URL, takes the same four commands and ends with its input:

- `prepare` makes the tables and applies the tuning; answers with `settings`, `versions` and `unfinished`, a query that
  says whether any job is left;
- `fill N` empties the queue and puts N jobs into it, in bulk;
- `enqueue` puts one job into it; answers with the times just before and just after, when it was committed;
- `work N` starts the worker; from then on it says when the first and every N-th job began.

Times are nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping

Command = Callable[..., Awaitable[Mapping[str, object] | None]]


def say(**words: object) -> None:
    """Send one line."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Marks:
    """Called once for each job: says when the first and every `every`-th began."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._count = 0

    def __call__(self) -> None:
        """One more job has begun."""
        self._count += 1
        if self._count == 1 or self._count % self._every == 0:
            say(job=self._count, at_ns=time.monotonic_ns())


async def timed(enqueue: Awaitable[object]) -> dict[str, int]:
    """Await one enqueue, and answer with the times around it."""
    sent_ns = time.monotonic_ns()
    await enqueue
    return {"sent_ns": sent_ns, "committed_ns": time.monotonic_ns()}


async def serve_commands(commands: Mapping[str, Command]) -> None:
    """Run commands, one after the other, until the input ends. Then end the process, even if it is busy."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(ready=time.monotonic_ns())
    while line := (await reader.readline()).decode():
        name, *numbers = line.split()
        # A command that never ends must not keep the process from noticing that its input has ended.
        answering = asyncio.ensure_future(commands[name](*map(int, numbers)))
        answering.add_done_callback(_answer)
    os._exit(0)


def run(main: Coroutine[object, object, None]) -> None:
    """Run a contender on uvloop."""
    import uvloop  # noqa: PLC0415 - the harness imports this module for its words, without a loop

    uvloop.run(main)


def _answer(answering: asyncio.Future[Mapping[str, object] | None]) -> None:
    """Say what a command came to; a failure ends the process."""
    if error := answering.exception():
        say(failed=f"{type(error).__name__}: {error}")
        os._exit(1)
    say(done=True, **(answering.result() or {}))
