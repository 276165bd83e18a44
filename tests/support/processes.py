"""`outbox run` as a real process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.support.commands import Command
from tests.support.eventually import eventually

EXIT_TIMEOUT_S = 45.0


class WorkerProcess:
    """A worker process, the relay's or the workflows'. Its log goes to a file.

    It is forked from a loaded process, as other commands are; `fresh` starts an interpreter, where memory is measured.
    """

    def __init__(
        self, log: Path, environment: dict[str, str], command: Sequence[str] = ("run",), *, fresh: bool = False
    ) -> None:
        self.log = log
        own = os.environ | {"LOG_LEVEL": "DEBUG", "OUTBOX_LOG_FORMAT": "json"} | environment
        interpreter = (sys.executable, "-m", "outbox")
        with log.open("ab") as out:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
            self.process: subprocess.Popen[Any] = (
                subprocess.Popen([*interpreter, *command], env=own, **streams)
                if fresh
                else Command(command, env=own, **streams)
            )

    def send(self, number: signal.Signals) -> None:
        """Signal the process."""
        self.process.send_signal(number)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log's lines with this message, so far."""
        entries = (orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{"))
        return [entry for entry in entries if entry["message"] == message]

    async def logged(self, message: str, *, count: int = 1, timeout_s: float = EXIT_TIMEOUT_S) -> list[dict[str, Any]]:
        """Return these lines once there are so many."""

        async def look() -> list[dict[str, Any]]:
            return self.lines(message)

        return await eventually(look, lambda found: len(found) >= count, timeout_s=timeout_s)

    def peak_kib(self) -> int:
        """The most memory that has been resident so far. Linux only."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def stop(self) -> int:
        """Drain the worker and return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code, within a bounded time."""
        return self.process.wait(EXIT_TIMEOUT_S)


@contextmanager
def worker_process(directory: Path, name: str, *, fresh: bool = False, **environment: str) -> Iterator[WorkerProcess]:
    """Run a worker for the block; afterwards kill what is left of it."""
    worker = WorkerProcess(directory / f"{name}.log", {"OUTBOX_WORKER_NAME": name, **environment}, fresh=fresh)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait()


@contextmanager
def workflow_worker_process(directory: Path, name: str, **environment: str) -> Iterator[WorkerProcess]:
    """Run a workflow worker for the block; afterwards kill what is left of it."""
    worker = WorkerProcess(directory / f"{name}.log", {"OUTBOX_WORKER_NAME": name, **environment}, ("workflows", "run"))
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait()
