"""The benchmark's side of the conversation with a contender, which `talk` describes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from time import monotonic_ns
from typing import IO, Any

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from outbox.errors import OutboxError

_FAREWELL_S = 5.0


class ContenderFailed(OutboxError):
    """A contender ended, or answered nothing in time; the text ends with what it said on stderr."""


class Contender:
    """One process. Its commands are awaited one after the other; it says when jobs begin at any time."""

    def __init__(self, name: str, process: Process, errors: IO[bytes]) -> None:
        self.name = name
        self._process = process
        self._errors = errors
        self._lines = self._read()

    async def ready(self) -> None:
        """Wait until it listens, and make sure that it reads the same clock as we do."""
        before_ns = monotonic_ns() - 10**9
        clock_ns = (await self._next("ready"))["ready"]
        if not before_ns < clock_ns < monotonic_ns() + 10**9:
            raise ContenderFailed(f"{self.name} reads another clock than the benchmark does; times cannot be compared")

    async def do(self, command: str, number: int | None = None) -> dict[str, Any]:
        """Send a command and return its answer."""
        assert self._process.stdin is not None
        await self._process.stdin.send(f"{command} {'' if number is None else number}\n".encode())
        return await self._next("done")

    async def begun_ns(self) -> int:
        """Return when the next job that it tells about began."""
        return int((await self._next("job"))["at_ns"])

    async def _next(self, key: str) -> dict[str, Any]:
        async for words in self._lines:
            if key in words:
                return words
        self._errors.seek(0)
        said = self._errors.read()[-1500:].decode(errors="replace").strip()
        raise ContenderFailed(f"{self.name} ended; it said: {said or 'nothing'}")

    async def _read(self) -> AsyncIterator[dict[str, Any]]:
        assert self._process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self._process.stdout):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                yield json.loads(line)


@asynccontextmanager
async def contending(
    name: str, command: Sequence[str | Path], directory: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Contender]:
    """Run a contender for the block. It ends when the block does, and also when this process is killed."""
    with tempfile.TemporaryFile() as errors:
        process = await anyio.open_process(
            [*map(str, command)], cwd=directory, stdin=PIPE, stdout=PIPE, stderr=errors,
            env={**os.environ, **(environment or {})},
        )
        try:
            contender = Contender(name, process, errors)
            await contender.ready()
            yield contender
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)


async def _end(process: Process) -> None:
    """Close its input, which ends it; kill it if it does not."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with anyio.move_on_after(_FAREWELL_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()
