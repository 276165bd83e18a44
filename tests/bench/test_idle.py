"""The idle scenario watches a worker process of each mode."""

from __future__ import annotations

from outbox_bench.scenarios import idle
from tests.bench.measuring import by_name, measured


async def test_statements_processor_time_and_memory_are_reported(database: str, temporal_server) -> None:
    report = await measured(idle, database, temporal_address=temporal_server.address)
    figures = by_name(report)
    assert set(figures) == {"idle, listen: statements/s", "idle, listen: % of a core", "idle, listen: MiB"}
    assert 20 < figures["idle, listen: MiB"][0] < 500
    assert all(figure.goal for figure in report.figures)


async def test_a_polling_worker_is_seen_to_ask(database: str) -> None:
    sink = "outbox_bench.load.nullsink:null_sink"
    report = await measured(idle, database, modes=("poll",), sink=sink, settle_s=0.1, watch_s=3.0, runs=1)
    assert by_name(report)["idle, poll: statements/s"][0] > 0
    assert not any(figure.goal for figure in report.figures)  # asking is what it is for
