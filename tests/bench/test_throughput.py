"""The throughput scenario: each sink is measured, what it costs is reported, and the loops go beside."""

from __future__ import annotations

import pytest
from temporalio.client import Client

from outbox.model.errors import ConfigurationError
from outbox_bench.scenarios import throughput
from tests.bench.measuring import by_name, measured
from tests.support.running import counts


async def test_null_sink_is_measured_with_what_a_message_costs(database: str) -> None:
    report = await measured(throughput, database, sinks=("null",), rows=3_000, runs=1, keys=100)
    figures = by_name(report)
    assert figures["relay, null sink"][0] > 100
    assert 1 < figures["worker's CPU, null sink"][0] < 2_000
    assert 0 < figures["PostgreSQL's CPU, null sink"][0] < 2_000
    assert figures["WAL, null sink"][0] > 300
    assert figures["buffers, null sink"][0] > 2
    assert 1 < figures["transactions, null sink"][0] < 1_000
    assert 0 < figures["restricted ÷ plain, null sink"][0]
    assert {figure.name for figure in report.figures if figure.goal} == {
        "relay, null sink",
        "restricted ÷ plain, null sink",
    }
    assert set((await counts(database)).values()) == {0}


async def test_stub_is_measured_beside_both_loops_and_said_to_be_one(database: str) -> None:
    report = await measured(throughput, database, sinks=("stub",), stub_rows=300, runs=1, stub_latency_ms=1.0)
    figures = by_name(report)
    for name in ("relay, stub", "raw loop, stub", "client loop, stub"):
        assert all(10 < run < 64_000 for run in figures[name]), "64 at a time cannot take less than the latency"
    ratios = [a / b for a, b in zip(figures["relay, stub"], figures["raw loop, stub"], strict=True)]
    assert figures["relay ÷ raw loop, stub"] == ratios
    assert figures["stub's CPU"][0] > 0
    assert any("executes nothing" in note for note in report.notes)
    assert "--latency-ms=1.0" in str(report.settings["stub"])
    assert not any("at the first attempt" in note for note in report.notes), report.notes


async def test_temporal_is_measured_where_it_is(database: str, temporal_client: Client) -> None:
    address = temporal_client.service_client.config.target_host
    report = await measured(
        throughput, database, temporal_address=address, sinks=("temporal",), temporal_rows=40, runs=1, concurrency=8
    )
    assert report.settings["temporal"] == address
    [goal] = [figure for figure in report.figures if figure.goal]
    assert goal.name == "relay ÷ client loop, temporal"


async def test_unknown_sink_is_named(database: str) -> None:
    with pytest.raises(ConfigurationError, match="'nowhere'"):
        await measured(throughput, database, sinks=("nowhere",))
