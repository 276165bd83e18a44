"""PostgreSQL with TLS, and an authority for its certificates. The wheel's server is built without: this is Debian's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from outbox_temporal.servers.postgres import PostgresServer

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
needs_tls = pytest.mark.skipif(
    not _PROGRAMS, reason="Debian's package postgresql is not installed here; .ci/run installs it"
)
PASSWORD = "right:p@ss\\w%rd/?#"
_ACCESS = """
local   all all                scram-sha-256
hostssl all certified all      cert
hostssl all only_tls all       scram-sha-256
host    all app all            scram-sha-256
host    all rotated all        scram-sha-256
host    all only_tls all       reject
"""


class Authority:
    """Signs certificates, and keeps them as files that the server's user can read."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.root = directory / "root.crt"
        self._ca.cert_pem.write_to_path(str(self.root))

    def issue(self, file: str, *names: str, of: str | None = None, expired: bool = False) -> tuple[Path, Path]:
        """A certificate for these names, or of this user; and its key."""
        ended = datetime.now(UTC) - timedelta(days=1) if expired else None
        begun = ended - timedelta(days=30) if ended else None
        leaf = self._ca.issue_cert(*names, common_name=of, not_before=begun, not_after=ended)
        certificate, key = self._directory / f"{file}.crt", self._directory / f"{file}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        if os.geteuid() == 0:
            shutil.chown(key, "nobody")
        return certificate, key


class SecuredPostgres(PostgresServer):
    """A server that offers TLS and asks for passwords. Role and database `app`; see `_ACCESS`."""

    def _programs(self) -> Path:
        return _PROGRAMS[-1].parent

    @property
    def port(self) -> int:
        """Where it listens, on every address of this machine."""
        return int(urlsplit(self.dsn()).port or 0)

    @property
    def socket_directory(self) -> Path:
        """Where its Unix socket is."""
        return self._scratch


@contextmanager
def secured_postgres(directory: Path, authority: Authority) -> Iterator[SecuredPostgres]:
    """A server for the block, its files in `directory`, its certificate for localhost, 127.0.0.1 and 0.0.0.0."""
    access = directory / "pg_hba.conf"
    access.write_text(f"local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n{_ACCESS}")
    certificate, key = authority.issue("server", "localhost", "127.0.0.1", "0.0.0.0")
    settings = {
        "listen_addresses": "*",
        "hba_file": str(access),
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
        "ssl_ca_file": str(authority.root),
        "password_encryption": "scram-sha-256",
    }
    with SecuredPostgres.start(settings=settings, fsync=False) as server:
        yield server
