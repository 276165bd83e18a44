"""Debian's PgBouncer before a test's PostgreSQL. 1.18 knows nothing of prepared statements: the bad case."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.process import EmbeddedServer

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(
    BINARY is None, reason="Debian's package pgbouncer is not installed here; .ci/run installs it"
)
Mode = Literal["session", "transaction"]


class PgBouncer(EmbeddedServer):
    """Pools every database of one PostgreSQL. Dies with its owner."""

    title, stop_signal, death_signal = "PgBouncer", signal.SIGTERM, signal.SIGQUIT  # SIGINT waits for its clients

    def __init__(self, postgres: PostgresServer, mode: Mode, lines: str) -> None:
        super().__init__(None)
        self._lines = lines
        self._postgres = postgres
        self._mode = mode

    def dsn(self, database: str = "postgres") -> str:
        """URL through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self._ports[0]}/{database}"

    def led(self, dsn: str) -> str:
        """The same database as in another URL, through the pooler."""
        return self.dsn(urlsplit(dsn).path.lstrip("/"))

    def log(self) -> str:
        """What it has said so far."""
        return self.log_path.read_text(errors="replace")

    def _prepare(self) -> None:
        if os.geteuid() == 0:  # PgBouncer refuses to run as root
            user = pwd.getpwnam("nobody")
            self._user = user.pw_uid, user.pw_gid
            os.chown(self._scratch, *self._user)

    def _command(self) -> list[str | Path]:
        port = urlsplit(self._postgres.dsn()).port
        configuration = self._scratch / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self._ports[0]}\npool_mode = {self._mode}\nauth_type = any\nadmin_users = postgres\n"
            "unix_socket_dir =\nmax_client_conn = 200\ndefault_pool_size = 10\n"
            f"{self._lines}\n"
        )
        assert BINARY
        return [BINARY, configuration]

    def _ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[0])) == 0


@contextmanager
def pgbouncer(postgres: PostgresServer, mode: Mode, lines: str = "") -> Iterator[PgBouncer]:
    """A PgBouncer in this mode for the block, with more `lines` of configuration."""
    with PgBouncer(postgres, mode, lines)._begin() as bouncer:
        yield bouncer
