"""A worker's memory stays within the manifests' limit, whatever producers may send. `make chaos` runs the full counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_bench.temporal_stub.server import StubFrontend
from outbox_temporal.servers.temporal import TemporalServer
from tests.support.eventually import eventually
from tests.support.processes import WorkerProcess, worker_process
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


async def drained(dsn: str, worker: WorkerProcess) -> None:
    """Return when nothing waits and nothing became a dead letter."""

    async def look() -> tuple[int, int | None]:
        return (await counts(dsn))["message"], worker.process.poll()

    left, exit_code = await eventually(
        look, lambda now: now[0] == 0 or now[1] is not None, timeout_s=800 if LONG else 150
    )
    assert (left, exit_code, (await counts(dsn))["dead_letter"]) == (0, None, 0)


@pytest.mark.parametrize("count", [1500 if LONG else 300])
async def test_waiting_payloads_of_2_mb_do_not_fill_the_memory(database: str, tmp_path: Path, count: int) -> None:
    await enqueue(database, 1, TEXT)
    await copy_first(database, count)
    with worker_process(
        tmp_path, "worker", fresh=True, DATABASE_URL=database, OUTBOX_SINK=SLOW_SINK, LOG_LEVEL="INFO"
    ) as worker:
        await drained(database, worker)
        assert worker.peak_kib() < LIMIT_KIB


async def test_wide_characters_memos_and_keys_do_not_fill_the_memory(database: str, tmp_path: Path) -> None:
    memo = """json_build_object('operation', 'cancel_workflow', 'workflow_id', 'w',
                                'memo', json_build_object('m', repeat('y', 750000)))"""
    await enqueue(database, 1, WIDE_TEXT)
    await copy_first(database, 150)
    await enqueue(database, 120, f"target => {memo}")
    await enqueue(database, 50, f"{WIDE_TEXT}, key => 'k' || i")
    with worker_process(
        tmp_path, "worker", fresh=True, DATABASE_URL=database, OUTBOX_SINK=SLOW_SINK, LOG_LEVEL="INFO"
    ) as worker:
        await drained(database, worker)
        assert worker.peak_kib() < LIMIT_KIB


@pytest.mark.parametrize("count", [300 if LONG else 40])
async def test_payloads_of_2_mb_pass_a_link_of_20_mb_a_second(database: str, tmp_path: Path, count: int) -> None:
    await enqueue(database, 1, TEXT)
    await copy_first(database, count)
    async with tcp_proxy(database) as proxy:
        proxy.limit(20_000_000)
        with worker_process(
            tmp_path, "worker", fresh=True, DATABASE_URL=proxy.url(database), OUTBOX_SINK=SLOW_SINK, LOG_LEVEL="INFO"
        ) as worker:
            await drained(database, worker)
            assert worker.peak_kib() < LIMIT_KIB
        assert proxy.received < 1.2 * count * 2_000_000, "claims that bring nothing cost the link"


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
    frontend = (
        StubFrontend.start(FrontendOptions(latency_ms=20))
        if server == "stub"
        else TemporalServer.start(ui=False, in_memory=True)
    )
    with (
        frontend,
        worker_process(
            tmp_path, "worker", fresh=True, DATABASE_URL=database, TEMPORAL_ADDRESS=frontend.address, LOG_LEVEL="INFO"
        ) as worker,
    ):
        await drained(database, worker)
        assert worker.peak_kib() < LIMIT_KIB
