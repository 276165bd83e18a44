"""Starts `outbox_bench.load.mover` processes, one or many, and measures what they and PostgreSQL spend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import orjson
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from outbox.model.errors import OutboxError
from outbox_bench.load.mover import Account

_LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Move:
    """What some processes did together."""

    accounts: list[Account]

    @property
    def moved(self) -> int:
        """Messages or starts."""
        return sum(account.moved for account in self.accounts)

    @property
    def rate(self) -> float:
        """A second, from the first of them that began to the last that ended."""
        worked = [account for account in self.accounts if account.moved]
        began_s, ended_s = min(account.began_s for account in worked), max(account.ended_s for account in worked)
        return self.moved / (ended_s - began_s)

    @property
    def cpu_us(self) -> float:
        """Processor time of all of them, in microseconds for each message."""
        return 1e6 * sum(account.cpu_s for account in self.accounts) / self.moved


class MoverProcess:
    """One process."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)

    async def read(self) -> object:
        """Its next line. Raises OutboxError with its last words if there is none."""
        try:
            line: object = orjson.loads(await self._lines.receive_until(b"\n", _LONGEST_LINE))
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.ClosedResourceError) as error:
            raise OutboxError(f"a benchmark's process ended early: {await self._last_words()}") from error
        return line

    async def signal(self) -> None:
        """Make it begin, or end."""
        assert self._process.stdin is not None
        await self._process.stdin.send(b"\n")

    async def account(self) -> Account:
        """What it did. It reports this when it ends."""
        line = await self.read()
        while not (isinstance(line, dict) and "began_s" in line):
            line = await self.read()
        return Account(**line)

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = b"".join([piece async for piece in self._process.stderr])
        return " · ".join(said.decode(errors="replace").strip().splitlines()[-3:]) or "it said nothing"


@asynccontextmanager
async def movers(number: int, what: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[list[MoverProcess]]:
    """This number of processes, ready to begin. Those that still run at the end are killed."""
    command = [sys.executable, "-m", "outbox_bench.load.mover", *what]
    processes: list[Process] = []
    try:
        for _ in range(number):
            # A session of its own: Ctrl-C is for us, and we end it.
            process = await anyio.open_process(
                command, stderr=subprocess.PIPE, env={**os.environ, **environment}, start_new_session=True
            )
            processes.append(process)
        started = [MoverProcess(process) for process in processes]
        for mover in started:
            await mover.read()
        yield started
    finally:
        with anyio.CancelScope(shield=True):
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.aclose()


async def move(started: Sequence[MoverProcess], count: int, moved_all: Callable[[], None] | None = None) -> Move:
    """Have them begin, and end once this many messages have been moved; `moved_all` is called before they end."""
    moved = 0

    async def follow(mover: MoverProcess, scope: anyio.CancelScope) -> None:
        nonlocal moved
        while moved < count:
            line = await mover.read()
            assert isinstance(line, dict)
            moved += line["moved"]
        scope.cancel()

    for mover in started:
        await mover.signal()
    async with anyio.create_task_group() as tasks:
        for mover in started:
            tasks.start_soon(follow, mover, tasks.cancel_scope)
    if moved_all is not None:
        moved_all()
    for mover in started:
        await mover.signal()
    return Move([await mover.account() for mover in started])
