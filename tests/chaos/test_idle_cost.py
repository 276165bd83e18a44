"""What an idle worker costs in each mode: statements, processor time, memory, and bytes to and from the database."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import asyncpg
import psutil
import pytest
from temporalio.client import Client

from tests.support.processes import WorkerProcess, worker_process
from tests.support.realtime_server import RealtimeServer, jwt
from tests.support.running import enqueue
from tests.support.sql import connected
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [pytest.mark.chaos, pytest.mark.slow("watches an idle worker for half a minute"), pytest.mark.timeout(400)]

LONG = os.environ.get("OUTBOX_CHAOS") == "long"
RESULTS = os.environ.get("OUTBOX_MATRIX")
SETTLE_S = 12.0
"""Polling slows down for ten seconds after the start."""
WATCHED_S = 120.0 if LONG else 20.0


@dataclass
class Cost:
    mode: str
    statements_per_s: float
    cpu_percent: float
    rss_mib: float
    bytes_per_s: float


async def transactions(watcher: asyncpg.Connection[asyncpg.Record], database: str) -> int:
    """How many transactions the database has seen; each of the worker's statements is one."""
    await watcher.execute("select pg_stat_clear_snapshot()")
    return int(
        await watcher.fetchval("select xact_commit + xact_rollback from pg_stat_database where datname = $1", database)
    )


async def watch(worker: WorkerProcess, dsn: str, admin_dsn: str, proxy: TcpProxy, mode: str) -> Cost:
    """Let the worker idle, and count."""
    await worker.logged("worker started")
    await anyio.sleep(SETTLE_S)
    process = psutil.Process(worker.process.pid)
    name = dsn.rpartition("/")[2]
    async with connected(admin_dsn) as watcher:
        before, bytes_before, cpu_before = await transactions(watcher, name), proxy.bytes, sum(process.cpu_times()[:2])
        await anyio.sleep(WATCHED_S)
        cost = Cost(
            mode,
            (await transactions(watcher, name) - before) / WATCHED_S,
            100 * (sum(process.cpu_times()[:2]) - cpu_before) / WATCHED_S,
            process.memory_info().rss / 2**20,
            (proxy.bytes - bytes_before) / WATCHED_S,
        )
    if RESULTS:
        Path(RESULTS, f"idle-{mode.replace(', ', '-')}.json").write_text(json.dumps(asdict(cost)))
    return cost


@pytest.mark.parametrize(("mode", "statements"), [("listen", 0.5), ("poll", 2.7)])
async def test_idle_worker_costs_next_to_nothing(
    database: str, temporal_client: Client, tmp_path: Path, mode: str, statements: float
) -> None:
    address = temporal_client.service_client.config.target_host
    async with tcp_proxy(database) as proxy:
        environment = {"DATABASE_URL": proxy.url(database), "OUTBOX_MODE": mode, "TEMPORAL_ADDRESS": address}
        with worker_process(tmp_path, "idle", fresh=True, **environment) as worker:
            admin = database.rpartition("/")[0] + "/postgres"
            cost = await watch(worker, database, admin, proxy, mode)
    within_a_short_time = 0.05 if LONG else 6 / WATCHED_S  # a heartbeat, a poll and a visit of autovacuum
    assert cost.statements_per_s <= statements + within_a_short_time, cost
    assert cost.cpu_percent <= (1.0 if LONG else 3.0), cost
    assert cost.rss_mib <= 100, cost


async def test_idle_workers_do_not_watch_one_another(database: str, tmp_path: Path) -> None:
    """While no worker holds a message, the death of a worker would not matter."""
    null = {"OUTBOX_MODE": "listen", "OUTBOX_SINK": "tests.support.sinks:null_sink", "LOG_LEVEL": "DEBUG"}
    async with tcp_proxy(database) as proxy:
        environment = {"DATABASE_URL": proxy.url(database), **null}
        with (
            worker_process(tmp_path, "one", **environment) as one,
            worker_process(tmp_path, "other", **environment) as other,
        ):
            for worker in (one, other):
                await worker.logged("presence shown")
            await enqueue(database, 10)
            admin = database.rpartition("/")[0] + "/postgres"
            cost = await watch(one, database, admin, proxy, "listen, beside another")
            assert len([*one.lines("completed"), *other.lines("completed")]) >= 1
    assert cost.statements_per_s <= 2 * (0.5 + 3 / WATCHED_S), cost


async def test_idle_worker_woken_by_realtime(
    server: RealtimeServer, supabase: str, temporal_client: Client, tmp_path: Path
) -> None:
    address = temporal_client.service_client.config.target_host
    async with tcp_proxy(supabase) as proxy:
        environment = {
            "DATABASE_URL": proxy.url(supabase),
            "OUTBOX_MODE": "realtime",
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": jwt("service_role"),
            "TEMPORAL_ADDRESS": address,
        }
        with worker_process(tmp_path, "idle", fresh=True, **environment) as worker:
            await worker.logged("wake-up source subscribed")
            admin = supabase.rpartition("/")[0] + "/postgres"
            cost = await watch(worker, supabase, admin, proxy, "realtime")
    # The Realtime server reads its replication slot ten times a second in the same database: only ours are judged.
    assert cost.cpu_percent <= (1.0 if LONG else 3.0), cost
    assert cost.rss_mib <= 110, cost
