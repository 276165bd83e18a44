"""A child process that lives no longer than we do, in a scratch directory that does not outlive it by much.

It runs in its own session, so Ctrl-C at the terminal stops the program and not the server under it; on Linux the
kernel ends it with this process, also after SIGKILL. What a killed owner left on disk, the next start removes.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from outbox.model.errors import OutboxError

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
SCRATCH_PREFIX = "temporal-outbox-server-"
TRY_AGAIN = ("address already in use", "pre-existing shared memory block")

User = tuple[int, int] | None

# The kernel's parent-death signal belongs to the thread that made the child: the child dies when that thread ends.
# Worker threads come and go, so all children are made by this one, which lives as long as the interpreter.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded")

# Runs in the child before the server. Not a `preexec_fn`, which is Python between fork and exec of a threaded process.
# The signal is set after the change of user, which clears it; by then the parent may be dead already.
_SHIM = """
import ctypes, os, sys
parent, death_signal, uid, gid = map(int, sys.argv[1:5])
try:
    if uid:
        os.setgroups([]); os.setgid(gid); os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, death_signal, 0, 0, 0)
    if os.getppid() == parent:
        os.execv(sys.argv[5], sys.argv[5:])
except OSError as error:
    print(f"cannot run {sys.argv[5]}: {error}", file=sys.stderr)
sys.exit(126)
"""


def spawn(argv: Sequence[str | Path], log: Path, user: User, death: signal.Signals) -> subprocess.Popen[bytes]:
    """Start a child that dies with this process, as `user` if given, its output appended to `log`."""
    numbers = [os.getpid(), int(death), *(user or (0, 0))]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "TEMPORAL_"))}
    with log.open("ab") as out:
        return _spawner.submit(
            subprocess.Popen[bytes],
            [sys.executable, "-I", "-S", "-c", _SHIM, *map(str, numbers), *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=env | {"LC_ALL": "C", "TEMPORAL_VERSION_CHECK_DISABLED": "1"},
            start_new_session=True,
        ).result()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, from below the range of outgoing connections.

    There no client's connection, not even one to the server itself, can take the port while the server is down.
    """
    try:
        ceiling = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        ceiling = 32768
    free: list[int] = []
    # Not the module's shared generator: a test runner may seed that alike in every one of its processes.
    for port in random.SystemRandom().sample(range(10240, max(ceiling, 20480)), 500):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OutboxError("no free TCP port on 127.0.0.1")


def _lock(directory: Path, how: int) -> int:
    """Lock the directory until the returned descriptor is closed or this process is gone."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        raise
    return fd


def _new_scratch() -> tuple[Path, int]:
    """Make a locked temporary directory, and remove those of killed owners (their lock is free)."""
    for stale in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        with suppress(OSError):
            if time.time() - stale.lstat().st_mtime > 60:  # a younger one may be about to be locked
                fd = _lock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale, ignore_errors=True)
                os.close(fd)
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    return scratch, _lock(scratch, fcntl.LOCK_EX)


class EmbeddedServer(ABC):
    """A server process with a scratch directory that `close` removes; a `directory` given by the caller stays."""

    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    """Ends it in order, its data complete."""
    death_signal: ClassVar[signal.Signals]
    """Ends it at once, leaving no process, lock or shared memory behind."""

    def __init__(self, directory: Path | None) -> None:
        self._scratch, self._scratch_lock = _new_scratch()
        self.directory = directory.absolute() if directory else self._scratch
        self.log_path = self._scratch / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = [0, 0]
        self._user: User = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """SIGKILL the server's main process, as an out-of-memory killer would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End the server in order if it runs, and start it at the same address on the same data."""
        self._end(self.stop_signal)
        self._boot(fresh_ports=False)

    def close(self) -> None:
        """End the server and remove the scratch directory; at once if its data go with it. May be called again."""
        self._end(self.stop_signal if self.directory != self._scratch else self.death_signal)
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._scratch_lock >= 0:
            os.close(self._scratch_lock)
            self._scratch_lock = -1

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _ready(self) -> bool: ...

    def _end(self, how: signal.Signals) -> None:
        """Signal the process and reap it; SIGKILL after `STOP_TIMEOUT_S`."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _begin(self) -> Self:
        try:
            self._prepare()
            self._boot(fresh_ports=True)
        except BaseException:
            self.close()
            raise
        return self

    def _boot(self, *, fresh_ports: bool) -> None:
        """Start and wait until it serves. Try again if only the port or a dying predecessor was in the way."""
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while True:
            self._ports = _free_ports(2) if fresh_ports else self._ports
            seen = self.log_path.stat().st_size if self.log_path.exists() else 0
            process = self._process = spawn(self._command(), self.log_path, self._user, self.death_signal)
            while process.poll() is None and time.monotonic() < give_up_s:
                if self._ready() and process.poll() is None:
                    return
                time.sleep(0.01)
            fate = f"gave no answer in {START_TIMEOUT_S} s" if process.poll() is None else f"ended ({process.poll()})"
            self._end(self.death_signal)
            log = self.log_path.read_bytes()[seen:].decode(errors="replace").strip()
            if time.monotonic() > give_up_s or not any(reason in log.lower() for reason in TRY_AGAIN):
                raise OutboxError(f"the embedded {self.title} {fate}; its log ends:\n{log[-2000:]}")
            time.sleep(0.05)
