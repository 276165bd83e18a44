"""What `/livez` and `/readyz` say under each fault, on real servers.

A fault that ends by itself, or that others have to repair, never costs the worker its liveness: a restart would repair
nothing. `make health` writes what is measured here into `docs/operations.md`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from outbox.model.events import Held
from outbox.model.message import Outlook
from outbox.relay.settings import OVERDUE_S
from outbox.store.messages import Store
from outbox.store.sql import migrations
from outbox_temporal.sink import temporal_sink
from tests.support.probing import Answer, becomes, free_port, get
from tests.support.processes import worker_process
from tests.support.running import Running, enqueue, fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import connected
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

RESULTS = os.environ.get("OUTBOX_HEALTH")
"""A folder to leave the measured rows in."""
NEWEST = migrations()[-1]
Act = Callable[["Scene"], Awaitable[object]]


@dataclass
class Scene:
    """A worker between real servers that can be taken away."""

    port: int
    dsn: str
    database: TcpProxy
    temporal: TcpProxy
    relay: Running


@dataclass
class Row:
    """One line of the table. Times are seconds; None where the fault is not repaired."""

    order: int
    fault: str
    live: int | None
    ready: int | None
    says: str
    noticed_s: float | None
    ready_again_s: float | None


@asynccontextmanager
async def scene(dsn: str, temporal: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    async with tcp_proxy(dsn) as database, tcp_proxy(f"//{temporal}") as to_temporal:
        monkeypatch.setenv("TEMPORAL_ADDRESS", f"{to_temporal.host}:{to_temporal.port}")
        port = free_port()
        how = {"http_port": port, "http_host": "127.0.0.1", "deliver_timeout_s": 3.0}
        async with running(database.url(dsn), factory=temporal_sink, **how) as relay:
            await becomes(port, "/readyz", 200)
            yield Scene(port, dsn, database, to_temporal, relay)
            database.flow()
            await database.accept()


def keep(row: Row) -> None:
    if RESULTS:
        Path(RESULTS, f"{row.order:02}.json").write_text(json.dumps(asdict(row)))


def shown(answer: Answer, *addresses: str) -> str:
    """What the page says, without what differs from run to run."""
    said = answer.faults
    for address in addresses:
        said = said.replace(address, "host:port")
    return said


async def sql(statement: str, scene: Scene) -> None:
    await fetch(scene.dsn, statement)


async def make_read_only(scene: Scene) -> None:
    name = scene.dsn.rpartition("/")[2]
    await sql(f'alter database "{name}" set default_transaction_read_only = on', scene)
    scene.database.cut()


async def make_writable(scene: Scene) -> None:
    name = scene.dsn.rpartition("/")[2]
    async with connected(scene.dsn) as connection:
        await connection.execute("set default_transaction_read_only = off")
        await connection.execute(f'alter database "{name}" reset default_transaction_read_only')


async def silence(scene: Scene) -> None:
    scene.database.stall()


async def end_silence(scene: Scene) -> None:
    scene.database.cut()
    scene.database.flow()


@dataclass(frozen=True)
class Fault:
    name: str
    begin: Act
    end: Act
    part: str
    """The part of the worker to break."""
    says: str


FAULTS = [
    Fault("database gone", lambda s: s.database.refuse(), lambda s: s.database.accept(), "database", "refused"),
    Fault("database silent", silence, end_silence, "database", "no answer"),
    Fault("database read-only", make_read_only, make_writable, "database", "read-only"),
    Fault("Temporal gone", lambda s: s.temporal.refuse(), lambda s: s.temporal.accept(), "sink", ""),
    Fault(
        "schema too old",
        partial(sql, f"delete from outbox.migration where version = {NEWEST.version}"),
        partial(sql, f"insert into outbox.migration values ({NEWEST.version}, '{NEWEST.name}', '{NEWEST.checksum}')"),
        "schema",
        "run `outbox migrate`",
    ),
    Fault(
        "schema too new",
        partial(sql, "insert into outbox.migration (version, name, checksum) values (9999, 'later', 'x')"),
        partial(sql, "delete from outbox.migration where version = 9999"),
        "schema",
        "newer than this version",
    ),
    Fault(
        "schema missing",
        partial(sql, "alter schema outbox rename to gone"),
        partial(sql, "alter schema gone rename to outbox"),
        "schema",
        "run `outbox migrate`",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_fault_of_others_makes_the_worker_unready_and_leaves_it_alive(
    database: str, temporal_client: Client, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    address = temporal_client.service_client.config.target_host
    async with scene(database, address, monkeypatch) as s:
        began_s = monotonic()
        await fault.begin(s)
        unready = await becomes(s.port, "/readyz", 503)
        noticed_s = monotonic() - began_s
        unready = await becomes(s.port, "/readyz", 503, fault.says)
        assert fault.says in unready.parts[fault.part]
        live = await get(s.port, "/livez")
        assert live.status == 200
        began_s = monotonic()
        await fault.end(s)
        again = await becomes(s.port, "/readyz", 200)
        addresses = [f"{proxy.host}:{proxy.port}" for proxy in (s.database, s.temporal)]
        says = shown(unready, *addresses, s.dsn.rpartition("/")[2])
        keep(Row(FAULTS.index(fault), fault.name, live.status, unready.status, says, noticed_s, monotonic() - began_s))
        assert again.faults == ""


async def test_a_missing_namespace_makes_the_worker_unready_until_it_is_made(
    database: str, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"later-{database.rpartition('/')[2].replace('_', '-')}-{os.getpid()}"
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_client.service_client.config.target_host)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", name)
    port = free_port()
    async with running(database, factory=temporal_sink, http_port=port) as _relay:
        began_s = monotonic()
        unready = await becomes(port, "/readyz", 503, name)
        noticed_s = monotonic() - began_s
        assert name in unready.parts["sink"]
        assert (await get(port, "/livez")).status == 200
        began_s = monotonic()
        await temporal_client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=Duration(seconds=86_400))
        )
        await becomes(port, "/readyz", 200)
        says = shown(unready).replace(name, "staging")
        keep(Row(20, "namespace missing", 200, 503, says, noticed_s, monotonic() - began_s))


async def test_a_holding_worker_is_alive_and_not_ready_until_it_resumes(database: str) -> None:
    sink, port = FakeSink(), free_port()
    async with running(database, sink, http_port=port) as relay:
        await becomes(port, "/readyz", 200)
        sink.available = False
        began_s = monotonic()
        await enqueue(database)
        await relay.log.wait_for(Held)
        unready = await get(port, "/readyz")
        noticed_s = monotonic() - began_s
        assert unready.status == 503
        assert unready.parts["relay"].startswith("holding for")
        assert "set to be unavailable" in unready.parts["sink"]
        assert (await get(port, "/livez")).status == 200
        began_s, sink.available = monotonic(), True
        await relay.wait_completed(1)
        await becomes(port, "/readyz", 200)
        keep(Row(21, "sink unavailable, holding", 200, 503, shown(unready), noticed_s, monotonic() - began_s))


async def test_a_worker_that_waits_for_its_database_is_alive_and_not_ready(postgres: object) -> None:
    port = free_port()
    async with running("postgresql://postgres@127.0.0.1:1/nothing", wait=False, http_port=port):
        unready = await becomes(port, "/readyz", 503, "refused")
        assert unready.parts["relay"] == "starting"
        assert (await get(port, "/livez")).status == 200
        keep(Row(22, "database gone at the start", 200, 503, shown(unready, "127.0.0.1:1"), None, None))


async def test_a_draining_worker_is_alive_and_not_ready(database: str) -> None:
    sink, port = FakeSink(), free_port()
    sink.block()
    async with running(database, sink, http_port=port) as relay:
        await becomes(port, "/readyz", 200)
        await enqueue(database)
        await sink.wait_received(1)
        relay.worker.stop()
        unready = await get(port, "/readyz")
        assert (unready.status, unready.parts["relay"]) == (503, "draining")
        assert (await get(port, "/livez")).status == 200
        keep(Row(23, "draining", 200, 503, shown(unready), None, None))
        sink.unblock()
        await relay.wait_ended()


async def test_a_loop_that_hangs_costs_the_worker_its_liveness(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fault of a server can do this, so a fault of ours is made."""
    port, hung, go_on = free_port(), anyio.Event(), anyio.Event()
    async with running(database, http_port=port) as relay:
        await becomes(port, "/readyz", 200)
        look = Store.outlook

        async def hang(store: Store, worker_id: int | None = None) -> Outlook:
            hung.set()
            await go_on.wait()
            return await look(store, worker_id)

        monkeypatch.setattr("outbox.relay.claim.OVERDUE_S", 0.5)
        await enqueue(database)
        await relay.wait_completed(1)  # so the loop promises by the shorter time
        monkeypatch.setattr(Store, "outlook", hang)
        await enqueue(database)
        await hung.wait()
        began_s = monotonic()
        dead = await becomes(port, "/livez", 503)
        assert dead.parts["loops"].startswith("claim overdue by")
        assert "claim overdue" in (await becomes(port, "/readyz", 503)).parts["relay"]
        noticed_s = monotonic() - began_s
        monkeypatch.setattr("outbox.relay.claim.OVERDUE_S", OVERDUE_S)
        go_on.set()
        await becomes(port, "/livez", 200)
        await becomes(port, "/readyz", 200)
        assert noticed_s < 20


async def test_a_stuck_event_loop_is_reported_as_not_alive(database: str, tmp_path: Path) -> None:
    port = free_port()
    sink = {"OUTBOX_SINK": "tests.support.sinks:stuck_sink", "OUTBOX_TEST_STUCK_S": "9"}
    with worker_process(tmp_path, "stuck", DATABASE_URL=database, OUTBOX_HTTP_PORT=str(port), **sink) as worker:
        await worker.logged("worker started")
        await becomes(port, "/readyz", 200)
        began_s = monotonic()
        await enqueue(database)
        dead = await becomes(port, "/livez", 503)
        noticed_s = monotonic() - began_s
        assert "event loop overdue" in dead.parts["loops"]
        unready = await get(port, "/readyz")
        assert unready.status == 503
        assert "event loop overdue" in unready.parts["relay"]
        assert (await get(port, "/metrics")).status == 200
        began_s = monotonic()
        await becomes(port, "/livez", 200)
        await becomes(port, "/readyz", 200)
        keep(Row(30, "event loop stuck", 503, 503, "relay: event loop overdue by … s", noticed_s, None))
