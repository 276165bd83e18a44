"""The benchmark's side of the conversation with a contender, which `talk` describes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from time import monotonic_ns
from typing import IO, Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from outbox.model.errors import OutboxError

_FAREWELL_S = 5.0
_LINE_BYTES = 65536


class ContenderFailed(OutboxError):
    """A contender ended by itself, or cannot be compared; one line that says why."""


class Contender:
    """One process. It takes commands one after the other, and reports jobs when they begin.

    Every method raises ContenderFailed once the process has ended; none is bounded in time.
    """

    def __init__(self, name: str, process: Process, errors: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name = name
        self.pid = process.pid
        self._input = process.stdin
        self._output = BufferedByteReceiveStream(process.stdout)
        self._errors = errors
        self._begun: list[tuple[int, int]] = []

    async def ready(self) -> None:
        """Wait until it listens, and make sure that it reads the same clock as we do."""
        before_ns = monotonic_ns()
        clock_ns = (await self._hear("ready"))["ready"]
        if not before_ns <= clock_ns <= monotonic_ns():
            raise ContenderFailed(f"{self.name} reads another monotonic clock, so its times cannot be compared")

    async def do(self, command: str, number: int | None = None) -> dict[str, Any]:
        """Give a command and return its answer."""
        try:
            await self._input.send(f"{command} {'' if number is None else number}\n".encode())
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._ended() from error
        return await self._hear("done")

    async def begun(self) -> tuple[int, int]:
        """The next job that it reports: how many have begun with it, and when it began, in monotonic nanoseconds."""
        if not self._begun:
            words = await self._hear("job")
            return words["job"], words["at_ns"]
        return self._begun.pop(0)

    async def _hear(self, key: str) -> dict[str, Any]:
        while True:
            try:
                line = await self._output.receive_until(b"\n", _LINE_BYTES)
            except (anyio.EndOfStream, anyio.IncompleteRead) as error:
                raise self._ended() from error
            words: dict[str, Any] = json.loads(line)
            if "failed" in words:
                raise ContenderFailed(f"{self.name} failed: {words['failed']}")
            if key in words:
                return words
            if "job" in words:  # it began before the command that started the worker was answered
                self._begun.append((words["job"], words["at_ns"]))

    def _ended(self) -> ContenderFailed:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines() or ["without a word"]
        errors = [line for line in said if "Error" in line] or said  # Node's last line is its version
        return ContenderFailed(f"{self.name} ended: {errors[-1].strip()}")


@asynccontextmanager
async def contending(
    name: str, command: Sequence[str | Path], directory: Path, environment: Mapping[str, str]
) -> AsyncIterator[Contender]:
    """Run a contender for the block. It ends when the block does, and also when this process is killed.

    `environment` is added to ours.
    """
    with tempfile.TemporaryFile() as errors:
        process = await anyio.open_process(
            [str(part) for part in command],
            cwd=directory,
            env=os.environ | environment,
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is ours to handle; the contender ends when its input does
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
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(_FAREWELL_S):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()
