"""`outbox run` as a separate process, observed through its log lines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import count
from time import monotonic

import anyio
import orjson
from anyio import to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from outbox.model.errors import OutboxError

_START_TIMEOUT_S = 30.0
_LONGEST_LINE = 1 << 20
_LOOK_EVERY_S = 0.01
_EXIT_TIMEOUT_S = 60.0
_numbers = count(1)


class WorkerProcess:
    """A worker; `worker_process` makes it."""

    def __init__(self, process: Process, name: str, http_port: int, began_s: float) -> None:
        self.name = name
        self.pid = process.pid
        self.began_s = began_s
        """When its process was started, in monotonic seconds."""
        self._http_port = http_port
        self._process = process
        self._said: set[str] = set()
        self._last: deque[str] = deque(maxlen=5)
        self._ended = False
        self._news = anyio.Event()

    async def read(self) -> None:
        """Read the log until it ends."""
        assert self._process.stderr is not None
        log = BufferedByteReceiveStream(self._process.stderr)
        try:
            while True:
                line = (await log.receive_until(b"\n", _LONGEST_LINE)).decode(errors="replace")
                self._last.append(line)
                if line.startswith("{"):
                    self._said.add(orjson.loads(line)["message"])
                self._notify()
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.ClosedResourceError):
            self._ended = True
            self._notify()

    async def said(self, message: str) -> None:
        """Return once the worker has logged this. Raises OutboxError if it ends before, or takes too long."""
        with anyio.move_on_after(_START_TIMEOUT_S):
            while message not in self._said and not self._ended:
                await self._news.wait()
        if message not in self._said:
            why = "ended" if self._ended else f"did not say “{message}” within {_START_TIMEOUT_S:g} s"
            raise OutboxError(f"the worker process {why}; its last words: {' · '.join(self._last) or 'none'}")

    async def ready(self) -> float:
        """Return when `/readyz` said that the worker is ready, in monotonic seconds. The worker must be `probed`.

        Raises OutboxError if the worker ends before, or takes too long.
        """
        answer = "nothing"
        with anyio.move_on_after(_START_TIMEOUT_S):
            while not self._ended:
                well, answer = await to_thread.run_sync(self._ask)
                if well:
                    return monotonic()
                await anyio.sleep(_LOOK_EVERY_S)
        words = " · ".join(self._last) or "none"
        raise OutboxError(f"the worker process was not ready; /readyz said {answer}; its last words: {words}")

    def _ask(self) -> tuple[bool, str]:
        connection = HTTPConnection("127.0.0.1", self._http_port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status == HTTPStatus.OK, answer.read().decode()
        except (OSError, HTTPException) as error:
            return False, str(error)
        finally:
            connection.close()

    async def terminate(self) -> int:
        """SIGTERM; return the exit code when the process is gone. Raises OutboxError if it stays."""
        self._process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_EXIT_TIMEOUT_S):
            return await self._process.wait()
        raise OutboxError(f"the worker process did not end within {_EXIT_TIMEOUT_S:g} s of SIGTERM")

    async def kill(self) -> None:
        """SIGKILL, and return when the process is gone. May be called again."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _notify(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


@asynccontextmanager
async def worker_process(
    dsn: str,
    *,
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
    probed: bool = False,
    **settings: object,
) -> AsyncIterator[WorkerProcess]:
    """A worker for the block, started and, if `wait`, connected; afterwards what is left of it is killed.

    `probed` has it serve `/readyz`. `settings` are fields of `Settings`. They and `environment` go before
    what our own environment says.
    """
    port = _free_port()
    name = f"bench-{os.getpid()}-{next(_numbers)}"
    chosen = {f"OUTBOX_{key.upper()}": str(value) for key, value in settings.items()}
    began_s = monotonic()
    process = await anyio.open_process(
        [sys.executable, "-m", "outbox", "run"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"DATABASE_URL": dsn, "OUTBOX_SCHEMA": "outbox", "OUTBOX_WORKER_NAME": name}
        | {"LOG_LEVEL": "INFO", "OUTBOX_LOG_FORMAT": "json", "OUTBOX_HTTP_HOST": "127.0.0.1"}
        | {"OUTBOX_HTTP_PORT": str(port) if probed else "0"}
        | chosen
        | dict(environment or {}),
        start_new_session=True,  # Ctrl-C is for us; we end it
    )
    worker = WorkerProcess(process, name, port, began_s)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.read)
            if wait:
                await worker.said("worker started")
            yield worker
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await worker.kill()
            await process.aclose()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
