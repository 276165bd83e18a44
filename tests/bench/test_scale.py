"""The scale scenario: every number of workers drains the same backlog."""

from __future__ import annotations

import pytest

from outbox.model.errors import OutboxError
from outbox_bench.load.mover_group import movers
from outbox_bench.scenarios import scale
from tests.bench.measuring import by_name, measured


async def test_each_number_of_workers_is_a_point_of_the_curve(database: str) -> None:
    report = await measured(scale, database)
    figures = by_name(report)
    rates = [figures[f"null sink, {workers}"][0] for workers in ("1 worker", "2 workers")]
    assert report.series["null sink"] == [(1.0, rates[0]), (2.0, rates[1])]
    assert figures["null sink, 2 workers ÷ 1 worker"] == [rates[1] / rates[0]]


async def test_a_process_that_ends_early_is_named_with_its_last_words(database: str) -> None:
    with pytest.raises(OutboxError, match="unknown arguments"):
        async with movers(1, ["nonsense"], {}):
            raise AssertionError("it was ready")
