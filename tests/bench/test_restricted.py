"""The scenario `restricted` compares each with itself alone."""

from __future__ import annotations

import pytest

from outbox_bench.scenarios import restricted
from tests.bench.measuring import by_name, measured
from tests.support.running import counts


async def test_other_messages_are_timed_alone_and_beside_waiting_ones(database: str) -> None:
    report = await measured(restricted, database)
    figures = by_name(report)
    assert len(report.samples["other keys, alone"]) == len(report.samples["other keys, beside a hot key"]) == 25
    for ratio, beside, alone in (
        ("other keys: beside a hot key ÷ alone, p99", "other keys beside a hot key, p99", "other keys alone, p99"),
        (
            "a small tenant: behind a large one ÷ alone",
            "a tenant's 100 messages behind another's",
            "a tenant's 100 messages alone",
        ),
    ):
        assert figures[ratio][0] == pytest.approx(figures[beside][0] / figures[alone][0])
    assert len([figure for figure in report.figures if figure.goal]) == 2
    assert set((await counts(database)).values()) == {0}
