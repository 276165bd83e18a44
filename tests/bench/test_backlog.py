"""The backlog scenario measures each size, and compares with the smallest."""

from __future__ import annotations

import anyio
import pytest

from outbox_bench.load.lab import Lab
from outbox_bench.report.report import Measurements
from outbox_bench.scenarios import backlog
from tests.bench.measuring import by_name, measured
from tests.support.running import counts


async def test_each_size_is_drained_and_compared_with_the_smallest(database: str) -> None:
    report = await measured(backlog, database)
    figures = by_name(report)
    for size in ("1,000", "5,000"):
        assert figures[f"drain rate, {size} waiting"][0] > 100
        assert figures[f"claim, {size} waiting"][0] > 0
        assert figures[f"buffers of a claim, {size} waiting"][0] >= report.settings["claim of"]
    [ratio] = [figure for figure in report.figures if figure.goal]
    assert ratio.name == "drain rate, 5,000 ÷ 1,000 waiting"
    rates = [figures[f"drain rate, {size} waiting"][0] for size in ("1,000", "5,000")]
    assert ratio.value == pytest.approx(rates[1] / rates[0])
    assert [x for x, _ in report.series["drain rate"]] == [1_000, 5_000]


async def test_urgent_messages_are_timed_while_a_backlog_is_drained(database: str) -> None:
    report = await measured(backlog, database, sizes=(4_000,), drained=4_000, drains=2, runs=2)
    assert len(by_name(report)["urgent message, 4,000 waiting"]) == 2
    assert all(ms > 0 for ms in report.samples["urgent message, 4,000 waiting"])


async def test_what_was_measured_before_an_interruption_is_reported(database: str) -> None:
    report = Measurements("backlog", "backlog")
    options = backlog.OPTIONS(sizes=(500,), drained=500, drains=1, runs=50)
    async with Lab(database) as lab, anyio.create_task_group() as tasks:

        def show(_: str, share: float) -> None:
            if share > 0:
                tasks.cancel_scope.cancel()

        await backlog.measure(lab, options, report, show)
    assert len(by_name(report)["drain rate, 500 waiting"]) == 1


async def test_nothing_is_left_in_the_outbox(database: str) -> None:
    await measured(backlog, database, sizes=(1_500,), drained=500, drains=1, runs=1)
    assert set((await counts(database)).values()) == {0}
