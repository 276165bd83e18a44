"""The command `outbox` as a process of its own that is forked from one that has loaded the program.

It costs a fiftieth of a fresh interpreter. Everything else is that of a real process: streams, environment, working
directory, signals, exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.preloaded import STATUS

ROOT = Path(__file__).parents[2]


class Command(subprocess.Popen[str]):
    """`outbox` with these arguments; takes the options of `subprocess.Popen` that concern streams and surroundings."""

    def __init__(self, arguments: Sequence[object], **options: Any) -> None:
        super().__init__([str(argument) for argument in arguments], text=True, **options)

    def _execute_child(self, args: list[str], *rest: Any) -> None:
        """Ask for a process instead of making one; the order of `rest` is that of CPython 3.11 to 3.14."""
        _, _, _, _, cwd, env, _, _, _, *pipes = rest
        p2cread, _, _, c2pwrite, _, errwrite = pipes[:6]
        request = {
            "arguments": args,
            "directory": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
        }
        self._status, status = os.pipe()
        streams = [given if given >= 0 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        try:
            socket.send_fds(_preloaded(), [json.dumps(request).encode()], [*streams, status])
        finally:
            os.close(status)
            self._close_pipe_fds(*pipes[:6])
        self._child_created = True
        self.pid = self._read_status()

    def _read_status(self) -> int:
        answer = os.read(self._status, STATUS.size)
        assert answer, "the process from which commands are forked has ended"
        return int(STATUS.unpack(answer)[0])

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        code = self._read_status()
        os.close(self._status)
        return self.pid, code

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                if self.returncode is None:
                    pid, code = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(code)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(
    arguments: Sequence[object],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: str = "",
    timeout_s: float = 45.0,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    pipe = subprocess.PIPE
    with Command(arguments, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe) as command:
        try:
            out, err = command.communicate(stdin, timeout_s)
        except BaseException:
            command.kill()
            raise
    return subprocess.CompletedProcess(arguments, command.returncode, out, err)


@cache
def _preloaded() -> socket.socket:
    """The connection to the process from which commands are forked, one for each process of the tests."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.preloaded", str(its.fileno())],
        cwd=ROOT,
        pass_fds=[its.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a signal from the terminal is for the tests
    )
    its.close()

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours
