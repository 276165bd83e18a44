"""A worker's memory stays within the manifests' limit, whatever producers may send. `make chaos` runs the full counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.temporal import TemporalServer
from tests.support.eventually import eventually
from tests.support.processes import worker_process
from tests.support.running import counts
from tests.support.sql import connected
from tests.support.tcp_proxy import tcp_proxy

LONG = os.environ.get("OUTBOX_CHAOS") == "long"
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900 if LONG else 180)]
LIMIT_KIB = 512 * 1024
"""Of the manifests in deploy/."""
SLOW_SINK = "tests.support.sinks:slow_sink"
TEXT = "to_json(repeat('x', 2000000))"
WIDE_TEXT = "('\"' || repeat('x', 2000000) || '🙂\"')::json"
"""Python keeps four bytes for each of its characters."""


async def enqueue(dsn: str, count: int, arguments: str) -> None:
    async with connected(dsn) as connection:
        await connection.fetch(f"select count(outbox.enqueue('t', {arguments})) from generate_series(1, {count}) i")


async def copy_first(dsn: str, count: int) -> None:
    """Make so many messages of the one that waits: much faster than to enqueue them."""
    async with connected(dsn) as connection:
        await connection.execute(f"""
            create temporary table copies as select m.* from outbox.message m, generate_series(2, {count});
            update copies set message_id = gen_random_uuid(), seq = nextval('outbox.message_seq_seq');
            insert into outbox.message overriding system value select * from copies""")


def start(more: str = "") -> str:
    """The SQL of a target with its own workflow id, and with more fields as arguments of json_build_object."""
    return (
        "json_build_object('operation', 'start_workflow', 'workflow', 'W', 'task_queue', 'nobody', "
        f"'workflow_id', gen_random_uuid(){more})"
    )


async def drain(dsn: str, directory: Path, **environment: str) -> int:
    """Have a worker deliver everything; return its peak of resident memory in KiB."""
    chosen = {"DATABASE_URL": dsn, "LOG_LEVEL": "INFO", **environment}
    with worker_process(directory, "worker", fresh=True, **chosen) as worker:

        async def look() -> tuple[int, int | None]:
            return (await counts(dsn))["message"], worker.process.poll()

        end = await eventually(look, lambda now: now[0] == 0 or now[1] is not None, timeout_s=800 if LONG else 150)
        assert (*end, (await counts(dsn))["dead_letter"]) == (0, None, 0)
        return worker.peak_kib()


@pytest.mark.parametrize("count", [1500 if LONG else 300])
async def test_waiting_payloads_of_2_mb_do_not_fill_the_memory(database: str, tmp_path: Path, count: int) -> None:
    await enqueue(database, 1, WIDE_TEXT)
    await copy_first(database, count)
    assert await drain(database, tmp_path, OUTBOX_SINK=SLOW_SINK) < LIMIT_KIB


async def test_payloads_memos_and_keys_together_do_not_fill_the_memory(database: str, tmp_path: Path) -> None:
    memo = """json_build_object('operation', 'cancel_workflow', 'workflow_id', 'w',
                                'memo', json_build_object('m', repeat('y', 750000)))"""
    await enqueue(database, 1, WIDE_TEXT)
    await copy_first(database, 150)
    await enqueue(database, 60, f"target => {memo}")
    await enqueue(database, 30, f"{WIDE_TEXT}, key => 'k' || i")
    assert await drain(database, tmp_path, OUTBOX_SINK=SLOW_SINK) < LIMIT_KIB


@pytest.mark.parametrize(
    ("count", "bytes_per_s"), [(300, 20_000_000) if LONG else (24, 4_000_000)], ids=["300" if LONG else "24"]
)
async def test_payloads_of_2_mb_pass_a_link_on_which_all_would_time_out(
    database: str, tmp_path: Path, count: int, bytes_per_s: float
) -> None:
    await enqueue(database, 1, TEXT)
    await copy_first(database, count)
    async with tcp_proxy(database) as proxy:
        proxy.limit(bytes_per_s)
        peak_kib = await drain(database, tmp_path, OUTBOX_SINK=SLOW_SINK, DATABASE_URL=proxy.url(database))
        assert proxy.received < 1.2 * count * 2_000_000, "claims that bring nothing cost the link"
    assert peak_kib < LIMIT_KIB


@pytest.mark.parametrize(
    ("count", "target"),
    [
        (120, start(", 'memo', json_build_object('m', repeat('y', 750000))")),
        (50, start(", 'memo', json_build_object('m', repeat('y', 1250000) || '🙂')")),
        (50, start(", 'details', i || repeat('y', 1250000) || '🙂'")),  # each of its kind, as caches see it
    ],
    ids=["memos", "wide memos", "own texts"],
)
@pytest.mark.parametrize("server", ["stub", *(["dev server"] if LONG else [])])
async def test_targets_do_not_fill_the_memory(
    database: str, tmp_path: Path, server: str, count: int, target: str
) -> None:
    await enqueue(database, count, f"target => {target}")
    with (
        StubFrontend.start(FrontendOptions(latency_ms=2000))
        if server == "stub"
        else TemporalServer.start(ui=False, in_memory=True)
    ) as frontend:
        assert await drain(database, tmp_path, TEMPORAL_ADDRESS=frontend.address) < LIMIT_KIB
