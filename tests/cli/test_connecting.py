"""Ways to a database and what may be wrong with them, on real servers with real TLS.

For the rule that asks for TLS, 0.0.0.0 is another machine; the kernel takes it for this one.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic
from urllib.parse import quote, urlsplit

import pytest

from outbox.config import settings as config
from outbox.model.errors import ConfigurationError, DatabaseUnavailable, OutboxError
from outbox.model.events import DatabaseLost, DatabaseRestored, SourceLost, SourceReady
from outbox.postgres.connect import connected
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.running import enqueue, fetch, running
from tests.support.secured import PASSWORD, Authority, SecuredPostgres, needs_tls, secured_postgres

pytestmark = [needs_tls, pytest.mark.timeout(120)]
ELSEWHERE = "0.0.0.0"
QUOTED = quote(PASSWORD, safe="")
Environment = dict[str, str]


@dataclass(frozen=True)
class Ground:
    """What the ways lead over."""

    server: SecuredPostgres
    plain: PostgresServer
    authority: Authority
    stranger: Authority
    directory: Path

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def plain_port(self) -> int:
        return int(urlsplit(self.plain.dsn()).port or 0)

    def file(self, name: str, text: str) -> str:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def url(self, host: str = ELSEWHERE, *, user: str = f"app:{QUOTED}", database: str = "app", **query: str) -> str:
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"postgresql://{user}@{host}:{self.port}/{database}{'?' if asked else ''}{asked}"

    def trusted(self, host: str = ELSEWHERE, **query: str) -> Environment:
        return {"DATABASE_URL": self.url(host, **query), "PGSSLROOTCERT": str(self.authority.root)}

    def singles(self) -> Environment:
        return {"DB_HOST": ELSEWHERE, "DB_PORT": str(self.port), "DB_NAME": "app", "DB_USER": "app"} | {
            "DB_SSLROOTCERT": str(self.authority.root)
        }

    def libpq(self) -> Environment:
        return {"PGHOST": ELSEWHERE, "PGPORT": str(self.port), "PGDATABASE": "app", "PGUSER": "app"} | {
            "PGSSLROOTCERT": str(self.authority.root)
        }

    def certified(self, of: str = "certified") -> Environment:
        certificate, key = self.authority.issue(of, of=of)
        return {"PGSSLCERT": str(certificate), "PGSSLKEY": str(key), "PGSSLROOTCERT": str(self.authority.root)}

    def service(self) -> str:
        lines = [f"host={ELSEWHERE}", f"port={self.port}", "dbname=app", "user=app", f"password={PASSWORD}"]
        lines += ["# a comment", f"sslrootcert={self.authority.root}"]
        return self.file("services", "\n".join(["[other]", "host=nowhere", "[shop]", *lines]))

    def password_file(self) -> str:
        escaped = re.sub(r"([\\:])", r"\\\1", PASSWORD)
        return self.file("pgpass", f"nowhere:*:*:*:wrong\n*:{self.port}:app:app:{escaped}")

    def long_socket(self) -> str:
        """A directory with a name so long that no socket's name fits, as with Cloud SQL."""
        directory = self.directory / "cloudsql" / ("project:region:" + "i" * 98)
        directory.mkdir(parents=True, exist_ok=True)
        link = directory / f".s.PGSQL.{self.port}"
        if not link.is_symlink():
            link.symlink_to(self.server.socket_directory / link.name)
        return str(directory)


@pytest.fixture(scope="module")
def ground(postgres: PostgresServer) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="outbox-secured-") as path:
        os.chmod(path, 0o755)
        directory, other = Path(path), Path(path, "stranger")
        other.mkdir()
        authority = Authority(directory)
        with secured_postgres(directory, authority) as server:
            yield Ground(server, postgres, authority, Authority(other), directory)


@pytest.fixture(scope="module")
async def prepared(anyio_backend: object, ground: Ground) -> Ground:
    quoted = PASSWORD.replace("'", "''")
    for statement in (
        f"create role app login password '{quoted}'",
        f"create role only_tls login password '{quoted}'",
        "create role certified login",
        "create database app owner app",
    ):
        await fetch(ground.server.dsn(), statement)
    return ground


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing of the environment in which the tests happen to run."""
    for name in list(os.environ):
        if name.startswith(("DATABASE_", "DB_", "PG", "OUTBOX_", "SUPABASE_", "LOG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def set_all(monkeypatch: pytest.MonkeyPatch, variables: Environment) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# Ways that lead there: the user that arrives, and whether TLS protects the way

WAYS: dict[str, tuple[Callable[[Ground], Environment], str, bool]] = {
    "another machine, verified by default": (lambda g: g.trusted(), "app", True),
    "verify-ca under another name": (lambda g: g.trusted("127.0.0.2", sslmode="verify-ca"), "app", True),
    "require verifies nothing": (lambda g: {"DATABASE_URL": g.url(sslmode="require")}, "app", True),
    "prefer takes TLS where there is some": (lambda g: {"DATABASE_URL": g.url(sslmode="prefer")}, "app", True),
    "allow takes none": (lambda g: {"DATABASE_URL": g.url(sslmode="allow")}, "app", False),
    "allow takes TLS where it must": (
        lambda g: {"DATABASE_URL": g.url(sslmode="allow", user=f"only_tls:{QUOTED}")},
        "only_tls",
        True,
    ),
    "disable": (lambda g: {"DATABASE_URL": g.url(sslmode="disable")}, "app", False),
    "this machine in the clear": (lambda g: {"DATABASE_URL": g.url("127.0.0.1")}, "app", False),
    "this machine with TLS": (lambda g: g.trusted("localhost", sslmode="verify-full"), "app", True),
    "channel binding asked for": (lambda g: g.trusted(sslmode="require", channel_binding="require"), "app", True),
    "client certificate": (
        lambda g: {"DATABASE_URL": g.url(user="certified")} | g.certified(),
        "certified",
        True,
    ),
    "URL with a driver's name": (
        lambda g: g.trusted() | {"DATABASE_URL": g.url().replace("postgresql:", "postgresql+asyncpg:")},
        "app",
        True,
    ),
    "URL from a file": (
        lambda g: {"DATABASE_URL_FILE": g.file("url", g.url(sslrootcert=str(g.authority.root)) + "\n")},
        "app",
        True,
    ),
    "URL and password from a file": (
        lambda g: g.trusted(user="app") | {"DB_PASSWORD_FILE": g.file("password", PASSWORD + "\n")},
        "app",
        True,
    ),
    "single variables": (lambda g: g.singles() | {"DB_PASS": PASSWORD, "DB_SSL": "true"}, "app", True),
    "libpq's variables": (lambda g: g.libpq() | {"PGPASSWORD": PASSWORD}, "app", True),
    "service": (lambda g: {"PGSERVICE": "shop", "PGSERVICEFILE": g.service()}, "app", True),
    "service in the URL": (
        lambda g: {"DATABASE_URL": f"postgresql:///?service=shop&servicefile={quote(g.service(), safe='')}"},
        "app",
        True,
    ),
    "password file": (
        lambda g: g.libpq() | {"PGPASSFILE": g.password_file()},
        "app",
        True,
    ),
    "socket": (
        lambda g: {"DATABASE_URL": f"postgresql://app:{QUOTED}@/app?host={g.server.socket_directory}&port={g.port}"},
        "app",
        False,
    ),
    "socket in the host's place": (
        lambda g: {"DATABASE_URL": g.url(quote(str(g.server.socket_directory), safe=""))},
        "app",
        False,
    ),
    "socket with a long path": (
        lambda g: g.singles() | {"DB_HOST": g.long_socket(), "DB_PASSWORD": PASSWORD},
        "app",
        False,
    ),
    "several hosts, the first refuses": (
        lambda g: {"DATABASE_URL": f"postgresql://app:{QUOTED}@127.0.0.1:1,127.0.0.1:{g.port}/app"},
        "app",
        False,
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_way_leads_there(way: str, prepared: Ground, environment: pytest.MonkeyPatch) -> None:
    variables, user, over_tls = WAYS[way]
    set_all(environment, variables(prepared))
    async with connected(config.load().dsn, application_name="test") as connection:
        [row] = await connection.fetch(
            "select current_user as user, current_database() as database, ssl from pg_stat_ssl"
            " where pid = pg_backend_pid()"
        )
    assert tuple(row.values()) == (user, "app", over_tls)


# Ways that lead nowhere: what is said, and whether waiting may help

FAULTS: dict[str, tuple[Callable[[Ground], Environment], type[OutboxError], list[str]]] = {
    "wrong authority": (
        lambda g: g.trusted() | {"PGSSLROOTCERT": str(g.stranger.root)},
        ConfigurationError,
        ["not from an authority in", "PGSSLROOTCERT", "stranger"],
    ),
    "authority unknown to the machine": (
        lambda g: {"DATABASE_URL": g.url()},
        ConfigurationError,
        ["not from an authority in this machine's authorities", "sslrootcert"],
    ),
    "wrong host name": (
        lambda g: g.trusted("127.0.0.2", sslmode="verify-full"),
        ConfigurationError,
        ["certificate is not for 127.0.0.2", "DATABASE_URL", "verify-ca"],
    ),
    "no TLS there": (
        lambda g: {"DATABASE_URL": f"postgresql://postgres@{ELSEWHERE}:{g.plain_port}/postgres"},
        ConfigurationError,
        ["offers no TLS", "default for another machine", "sslmode=disable", "DATABASE_URL"],
    ),
    "TLS left out where it is wanted": (
        lambda g: {"DATABASE_URL": g.url(user=f"only_tls:{QUOTED}", sslmode="disable")},
        ConfigurationError,
        ["no encryption", "DATABASE_URL"],
    ),
    "wrong password": (
        lambda g: g.trusted(user="app:hunter2"),
        ConfigurationError,
        ['password authentication failed for user "app"', "environment variable DATABASE_URL"],
    ),
    "wrong password in a file": (
        lambda g: g.singles() | {"DB_PASSWORD_FILE": g.file("wrong", "hunter2")},
        ConfigurationError,
        ["password authentication failed", "named by DB_PASSWORD_FILE"],
    ),
    "no password": (lambda g: g.trusted(user="app"), ConfigurationError, ["no password is given", "DB_PASSWORD_FILE"]),
    "no client certificate": (
        lambda g: g.trusted(user="certified"),
        ConfigurationError,
        ["valid client certificate", "PGSSLCERT"],
    ),
    "another user's certificate": (
        lambda g: {"DATABASE_URL": g.url(user="certified")} | g.certified(of="another"),
        ConfigurationError,
        ["certificate authentication failed", "PGSSLCERT"],
    ),
    "missing database": (
        lambda g: g.trusted(database="nowhere"),
        ConfigurationError,
        ['database "nowhere" does not exist', "create it", "DATABASE_URL"],
    ),
    "missing role": (
        lambda g: {"DATABASE_URL": g.plain.dsn().replace("postgres@", "nobody@")},
        ConfigurationError,
        ['role "nobody" does not exist: create it, or correct DATABASE_URL'],
    ),
    "unknown parameter of the session": (
        lambda g: g.trusted(options="-cnosuch=1"),
        ConfigurationError,
        ['parameter "nosuch"', "correct options in DATABASE_URL"],
    ),
    "no entry for the user": (
        lambda g: g.trusted(user="nobody:x"),
        ConfigurationError,
        ["pg_hba.conf", "DATABASE_URL"],
    ),
    "port that refuses": (
        lambda _: {"DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_USER": "app"},
        DatabaseUnavailable,
        ["PostgreSQL at 127.0.0.1:1: refused", "DB_HOST"],
    ),
    "unknown host": (
        lambda _: {"PGHOST": "no-such-host.invalid", "PGUSER": "app"},
        DatabaseUnavailable,
        ["the name is not known", "PGHOST"],
    ),
    "no socket": (
        lambda g: {"DB_HOST": str(g.directory), "DB_USER": "app"},
        DatabaseUnavailable,
        ["no way to its socket", "DB_HOST"],
    ),
    "no host takes writes": (
        lambda g: g.trusted(options="-cdefault_transaction_read_only=on", target_session_attrs="read-write"),
        DatabaseUnavailable,
        ["takes no writes"],
    ),
    "every host of several": (
        lambda _: {"DATABASE_URL": "postgresql://app@127.0.0.1:1,127.0.0.1:2/app"},
        DatabaseUnavailable,
        ["127.0.0.1:1: refused", "127.0.0.1:2: refused"],
    ),
}


async def test_a_file_that_is_missing_is_named_with_its_parameter(
    prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    set_all(environment, prepared.trusted(sslcert="/nonexistent"))
    with pytest.raises(ConfigurationError, match="DATABASE_URL cannot be used: sslcert is '/nonexistent': No such"):
        config.load()


async def reported(settings: config.Settings) -> OutboxError:
    """What is said of a way that leads nowhere."""
    with pytest.raises(OutboxError) as raised:
        async with connected(settings.dsn, application_name="test"):
            pass
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_is_one_line_with_cause_and_cure(
    fault: str, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    variables, kind, words = FAULTS[fault]
    set_all(environment, variables(prepared))
    error = await reported(config.load())
    assert type(error) is kind
    assert str(error).startswith("connect to PostgreSQL at ")
    assert [word for word in words if word not in str(error)] == []
    for secret in ("hunter2", PASSWORD, QUOTED):
        assert secret not in str(error)


async def test_expired_certificate_is_reported_and_a_renewed_one_is_taken(
    prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    set_all(environment, prepared.trusted())
    where = config.load().dsn

    async def serve(*, expired: bool) -> None:
        prepared.authority.issue("server", "localhost", "127.0.0.1", ELSEWHERE, expired=expired)
        await fetch(prepared.server.dsn(), "select pg_reload_conf()")

    async def answer() -> str:
        try:
            async with connected(where, application_name="test"):
                return "in"
        except ConfigurationError as error:
            return str(error)

    try:
        await serve(expired=True)
        said = await eventually(answer, lambda said: said != "in")
    finally:
        await serve(expired=False)
    assert "the server's certificate has expired: renew it there" in said
    assert await eventually(answer, lambda said: said == "in") == "in"


@pytest.fixture
def silence() -> Iterator[int]:
    """A port on which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_black_hole_is_reported_in_time(silence: int, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://app@127.0.0.1:{silence}/app?connect_timeout=1")
    began_s = monotonic()
    error = await reported(config.load())
    assert monotonic() - began_s < 15
    assert isinstance(error, DatabaseUnavailable)
    assert "no answer within 1 s" in str(error)


async def test_black_hole_does_not_keep_from_the_next_host(
    silence: int, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    hosts = f"127.0.0.1:{silence},127.0.0.1:{prepared.port}"
    environment.setenv("DATABASE_URL", f"postgresql://app:{QUOTED}@{hosts}/app?connect_timeout=4")
    async with connected(config.load().dsn, application_name="test") as connection:
        assert await connection.fetchval("select 1") == 1


@contextmanager
def ending(how: str) -> Iterator[int]:
    """A port that accepts and ends connections, as a proxy does while its server is away."""
    internal_error = bytes([21, 3, 3, 0, 2, 2, 80])

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(8)  # asks for TLS
                if how == "at once":
                    continue
                connection.sendall(b"S")
                connection.recv(65536)
                if how == "by a reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if how == "by an alert":
                    connection.sendall(internal_error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("how", ["at once", "in the handshake", "by a reset", "by an alert"])
async def test_a_connection_that_is_cut_off_may_come_again(how: str, environment: pytest.MonkeyPatch) -> None:
    with ending(how) as port:
        environment.setenv("DATABASE_URL", f"postgresql://app@127.0.0.1:{port}/app?sslmode=require")
        error = await reported(config.load())
    assert isinstance(error, DatabaseUnavailable)
    assert "cut off before PostgreSQL answered: is PostgreSQL running behind what listens there" in str(error)


async def test_commands_exit_with_2_and_one_line(prepared: Ground) -> None:
    done = await outbox(prepared.url(user="app:hunter2"), "status", PGSSLROOTCERT=str(prepared.authority.root))
    assert done.code == 2
    assert "password authentication failed" in done.fault
    assert "hunter2" not in done.err


async def test_worker_waits_for_what_may_come(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "postgresql://app@127.0.0.1:1/app")
    async with running(None, wait=False) as relay:
        lost = await relay.log.wait_for(DatabaseLost)
        assert "refused, no server listens there" in lost.error


# Secrets that change while a worker runs


@pytest.fixture
async def shop(prepared: Ground) -> AsyncIterator[str]:
    """A role of this test's own in a migrated database of its own; gives the administrator's URL of it."""
    await fetch(prepared.server.dsn(), "create role rotated login superuser password 'first-canary'")
    await fetch(prepared.server.dsn(), "create database shop owner rotated")
    await migrate(prepared.server.dsn("shop"))
    try:
        yield prepared.server.dsn("shop")
    finally:
        await fetch(prepared.server.dsn(), "drop database shop with (force)")
        await fetch(prepared.server.dsn(), "drop role rotated")


@pytest.mark.parametrize("how", ["DB_PASSWORD_FILE", "DATABASE_URL_FILE", "PGPASSFILE", "PGSERVICEFILE"])
async def test_rotated_password_is_taken_without_a_restart(
    how: str, shop: str, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    """First the database knows the new one, later the file: what comes between is waited for."""
    port, root = prepared.port, prepared.authority.root

    def secret(password: str) -> str:
        query = f"?sslrootcert={quote(str(root), safe='')}"
        return {
            "DB_PASSWORD_FILE": password,
            "DATABASE_URL_FILE": f"postgresql://rotated:{password}@{ELSEWHERE}:{port}/shop{query}",
            "PGPASSFILE": f"*:*:*:rotated:{password}\n",
            "PGSERVICEFILE": f"[s]\nhost={ELSEWHERE}\nport={port}\ndbname=shop\nuser=rotated\npassword={password}\n",
        }[how]

    variables = {"PGSSLROOTCERT": str(root), how: prepared.file("rotated", secret("first-canary"))}
    if how in ("DB_PASSWORD_FILE", "PGPASSFILE"):
        variables |= {"DB_HOST": ELSEWHERE, "DB_PORT": str(port), "DB_NAME": "shop", "DB_USER": "rotated"}
    if how == "PGSERVICEFILE":
        variables["PGSERVICE"] = "s"
    set_all(environment, variables)
    async with running(None, mode="listen") as relay:
        await relay.log.wait_for(SourceReady)
        mark = len(relay.log)
        await fetch(shop, "alter role rotated password 'second-canary'")
        await fetch(shop, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotated'")
        for kind in (DatabaseLost, SourceLost):
            lost = await relay.log.wait_for(
                kind, lambda e: "password authentication failed" in e.error, after=mark, timeout_s=30
            )
            assert how.replace("PGSERVICEFILE", "service s") in lost.error.replace("password file", "PGPASSFILE")
        prepared.file("rotated", secret("second-canary"))
        # It tries again within five seconds; on a starved machine an attempt takes as long as that, or longer.
        await relay.log.wait_for(DatabaseRestored, after=mark, timeout_s=45)
        await relay.log.wait_for(SourceReady, after=mark, timeout_s=45)
        await enqueue(shop)
        await relay.wait_completed(1)
    assert "canary" not in repr(relay.log.events)


# Addresses for LISTEN, and poolers


async def test_listen_address_is_named_when_it_is_refused(
    database: str, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OUTBOX_LISTEN_URL", f"postgresql://app:hunter2@127.0.0.1:{prepared.port}/app")
    async with running(database, mode="listen") as relay:
        lost = await relay.log.wait_for(SourceLost)
    assert "password authentication failed" in lost.error
    assert "environment variable OUTBOX_LISTEN_URL" in lost.error
    assert "DATABASE_URL" not in lost.error.replace("OUTBOX_LISTEN_URL", "")
    assert "hunter2" not in lost.error


@needs_pgbouncer
async def test_listen_address_takes_the_user_from_the_other(
    database: str, postgres: PostgresServer, environment: pytest.MonkeyPatch
) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        environment.setenv("DATABASE_URL", bouncer.led(database))
        environment.setenv("OUTBOX_LISTEN_URL", f"postgresql://{urlsplit(postgres.dsn()).netloc.rpartition('@')[2]}")
        async with running(None, mode="listen") as relay:
            await relay.log.wait_for(SourceReady)
            await enqueue(database)
            await relay.wait_completed(1)


@needs_pgbouncer
async def test_pooler_is_verified_like_a_server(
    database: str, postgres: PostgresServer, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    certificate, key = prepared.authority.issue("pooler", ELSEWHERE)
    tls = f"client_tls_sslmode = require\nclient_tls_cert_file = {certificate}\nclient_tls_key_file = {key}"
    with pgbouncer(postgres, "transaction", tls) as bouncer:
        environment.setenv("DATABASE_URL", bouncer.led(database).replace("127.0.0.1", ELSEWHERE))
        environment.setenv("PGSSLROOTCERT", str(prepared.authority.root))
        async with connected(config.load().dsn, application_name="test") as connection:
            assert await connection.fetchval("select 1") == 1
        environment.setenv("PGSSLROOTCERT", str(prepared.stranger.root))
        assert "not from an authority in" in str(await reported(config.load()))
