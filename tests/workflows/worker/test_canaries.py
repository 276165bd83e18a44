"""No payload and no secret gets into the output of a worker or a command. Canaries are planted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.cli.test_cli import outbox
from tests.support.processes import worker_process
from tests.support.realtime_server import jwt, prepare, realtime_server
from tests.support.running import fetch
from tests.support.shared import SharedServer
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(180)
CANARY = "kanarienvogel"
"""In every planted text, and in nothing else. Tokens, which have a form, are looked for as they are."""
ACCESS = "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all app 127.0.0.1/32 scram-sha-256\n"
PLANTED = json.dumps({"secret": f"{CANARY}-payload"})
CARRIED = {
    "key": f"{CANARY}-key",
    "headers": json.dumps({"authorization": f"{CANARY}-header", "traceparent": f"{CANARY}-trace"}),
}
START = {"operation": "start_workflow", "workflow": "Nothing", "task_queue": "unserved"}
MEMO = {"memo": {"secret": f"{CANARY}-memo"}}


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresServer]:
    """A server that asks `app` for its password, and can be replicated."""
    with TemporaryDirectory() as directory:
        file = Path(directory, "pg_hba.conf")
        file.write_text(ACCESS)
        Path(directory).chmod(0o755)  # if root runs the tests, another user runs the server
        settings = {"hba_file": str(file), "wal_level": "logical", "password_encryption": "scram-sha-256"}
        with PostgresServer.start(settings=settings, fsync=False) as server:
            yield server


@pytest.fixture
async def shop(guarded: PostgresServer) -> AsyncIterator[TcpProxy]:
    """A proxy before a database `shop`, in which a message of the topic `refused` can never be settled."""
    dsn = guarded.dsn("shop")
    await fetch(guarded.dsn(), f"create role app login superuser password '{CANARY}-password'")
    await fetch(guarded.dsn(), "create database shop")
    await migrate(dsn)
    await prepare(dsn, "outbox.message")
    await fetch(dsn, "alter table outbox.history add check (topic <> 'refused')")
    async with tcp_proxy(dsn) as proxy:
        yield proxy


def messages() -> list[dict[str, Any]]:
    """One of each fate, by topic: delivered, tried again, dead in several ways, and not to be settled."""
    start = {**START, **MEMO}
    unknown = {"search_attributes": {"NobodyKnowsThis": f"{CANARY}-attribute"}}
    signal = {"operation": "signal_workflow", "signal": "s"}
    targets = {
        "delivered": start,
        "retried": signal,
        "refused": start,
        "dead.shape": {**start, "arguments": "many"},
        "retried.attribute": {**start, **unknown},
        "dead.field": {**start, CANARY[::-1]: 1},
    }
    return [
        {"topic": topic, "target": json.dumps({**target, "workflow_id": f"{topic}-{uuid4()}"})}
        for topic, target in targets.items()
    ]


async def enqueue(dsn: str) -> None:
    for message in messages():
        statement = "select outbox.enqueue($1, $2::json, key => $3, headers => $4::json, target => $5::json)"
        key = f"{CARRIED['key']}-{message['topic']}"
        await fetch(dsn, statement, message["topic"], PLANTED, key, CARRIED["headers"], message["target"])


@pytest.mark.slow("provokes every fault that is logged")
async def test_no_canary_gets_out(
    guarded: PostgresServer, shop: TcpProxy, temporal_server: SharedServer, tmp_path: Path
) -> None:
    good, bad = jwt("service_role"), jwt("service_role", secret=f"{CANARY}-that-is-long-enough-for-it")
    direct = shop.url(f"postgresql://app:{CANARY}-password@h/shop")
    wrong = shop.url(f"postgresql://app:{CANARY}-wrong-password@h/shop")
    environment = {
        "DATABASE_URL": direct,
        "OUTBOX_MODE": "realtime",
        "LOG_LEVEL": "TRACE",
        "TEMPORAL_ADDRESS": temporal_server.address,
        "TEMPORAL_API_KEY": f"{CANARY}-api-key",
        "TEMPORAL_TLS": "false",
        "TEMPORAL_GRPC_META_X_TOKEN": f"{CANARY}-grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://me:{CANARY}-collector@127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization: {CANARY}-otel",
        "OUTBOX_RETRY_BASE_S": "0.1",
    }
    logs: list[Path] = []
    written: list[str] = []
    async with realtime_server(guarded.dsn("shop")) as realtime:
        environment |= {"SUPABASE_URL": realtime.url, "SUPABASE_SERVICE_ROLE_KEY": good}
        with worker_process(tmp_path, "steady", **environment) as worker:
            logs.append(worker.log)
            await worker.logged("wake-up source subscribed")
            await enqueue(guarded.dsn("shop"))
            await worker.logged("message became a dead letter", count=2)
            await worker.logged("message failed, will retry", count=2)
            for said in ("database refused to settle a message", "completed"):
                await worker.logged(said)
            await shop.refuse()
            shop.cut()
            await worker.logged("database lost, trying again")
            await shop.accept()
            await worker.logged("database restored")
            written += [
                done.out + done.err
                for command in ("config", "status", "doctor")
                for done in [await outbox(direct, command, **environment)]
            ]
            assert worker.stop() == 0
        with worker_process(tmp_path, "mistaken", **environment | {"SUPABASE_SERVICE_ROLE_KEY": bad}) as worker:
            logs.append(worker.log)
            await worker.logged("wake-up source lost, polling meanwhile")
            assert worker.stop() == 0
    for command in ("run", "doctor"):
        done = await outbox(wrong, command, **environment)
        assert done.code != 0
        written.append(done.out + done.err)
    lines = [line for log in logs for line in log.read_text().splitlines()]
    assert len(lines) > 20
    assert [line for line in lines if not line.startswith("{")] == []
    everything = "\n".join(lines + written)
    for canary in (CANARY, good, bad, good.rpartition(".")[2]):
        assert [line for line in everything.splitlines() if canary in line] == []


async def test_the_canaries_can_be_seen(database: str) -> None:
    await enqueue(database)
    [row] = await fetch(database, "select string_agg(m::text, '') as all from outbox.message m")
    for planted in ("payload", "key", "header", "trace", "memo", "attribute"):
        assert f"{CANARY}-{planted}" in row["all"]
