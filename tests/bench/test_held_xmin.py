"""The held-xmin scenario really holds the horizon, and compares it with a free one."""

from __future__ import annotations

import pytest

from outbox_bench.report.report import Measurements
from outbox_bench.scenarios import held_xmin
from tests.bench.measuring import by_name, measured
from tests.support.sql import connected


async def test_both_ways_are_drained_and_compared(database: str) -> None:
    report = await measured(held_xmin, database, rounds=3, messages=400, runs=2)
    figures = by_name(report)
    free, held = figures["drain rate, xmin free"], figures["drain rate, xmin held"]
    assert figures["drain rate, xmin held ÷ not"] == pytest.approx([h / f for h, f in zip(held, free, strict=True)])
    assert [x for x, _ in report.series["drain rate, xmin held"]] == [400, 800, 1200]
    assert not report.notes


async def test_rows_that_die_meanwhile_cannot_be_removed(database: str) -> None:
    async with connected(database) as db:
        async with held_xmin.held_xmin(database, db, report := Measurements("held-xmin", "")):
            await db.execute("select outbox.enqueue('a') from generate_series(1, 100)")
            await db.execute("delete from outbox.message")
            kept = await vacuum(db)
        assert not report.notes
        assert await vacuum(db) < kept


async def vacuum(db) -> int:
    """Pages that remain."""
    await db.execute("vacuum (freeze) outbox.message")
    return await db.fetchval("select pg_relation_size('outbox.message')")
