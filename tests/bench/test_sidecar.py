"""The scenarios of the sidecar's life: how soon it is ready, how it ends, and what an update of all of them costs."""

from __future__ import annotations

import pytest

from outbox_bench.load.flow import FlowRecord
from outbox_bench.report.report import Measurements
from outbox_bench.scenarios import drain, ready, rolling
from outbox_bench.scenarios.rolling import Update
from tests.bench.measuring import by_name, measured
from tests.support.shared import SharedServer

pytestmark = pytest.mark.timeout(120)


def ledger(latencies_s: dict[float, float], *, lost: int = 0, doubled: int = 0, left: int = 0) -> FlowRecord:
    """By the second in which an event was due: its latency. So many more are lost, and so many executed twice."""
    due_s = {f"w{second}": second for second in latencies_s} | {f"lost{n}": 0.0 for n in range(lost)}
    started_s = {f"w{second}": second + latency_s for second, latency_s in latencies_s.items()}
    return FlowRecord(due_s, started_s, len(started_s) + doubled, left)


def verdicts(report: Measurements) -> dict[str, bool | None]:
    return {figure.name: figure.reached for figure in report.figures if figure.goal}


def test_a_drain_without_fault_meets_every_goal() -> None:
    report = Measurements("drain", "")
    drain.judge(report, 0, 9.9, ledger({1.0: 0.01}))
    assert verdicts(report) == {
        "SIGTERM to the process's end": True,
        "SIGTERM to the process's end, longest": True,
        "exits other than 0": True,
        "events lost": True,
        "events doubled": True,
    }
    assert report.notes == []


@pytest.mark.parametrize(
    ("code", "took_s", "found", "missed"),
    [
        (1, 1.0, ledger({1.0: 0.1}), "exits other than 0"),
        (0, 10.1, ledger({1.0: 0.1}), "SIGTERM to the process's end, longest"),
        (0, 1.0, ledger({1.0: 0.1}, lost=1), "events lost"),
        (0, 1.0, ledger({1.0: 0.1}, doubled=1), "events doubled"),
    ],
)
def test_each_fault_of_a_drain_misses_its_goal(code: int, took_s: float, found: FlowRecord, missed: str) -> None:
    """However many runs without fault there are beside it."""
    report = Measurements("drain", "")
    for each in ((0, 1.0, ledger({1.0: 0.1})), (code, took_s, found), (0, 1.0, ledger({1.0: 0.1}))):
        drain.judge(report, *each)
    assert [name for name, reached in verdicts(report).items() if not reached] == [missed]


def test_a_lost_event_does_not_hide_a_doubled_one() -> None:
    found = ledger({1.0: 0.1}, lost=1, doubled=1)
    assert (found.lost, found.doubled) == (1, 1)


def test_messages_that_were_never_settled_are_reported() -> None:
    report = Measurements("drain", "")
    ledger({1.0: 0.1}, left=3).judge(report)
    assert "3 messages were not settled" in report.notes[0]


def test_an_update_is_judged_by_the_events_that_were_due_during_it() -> None:
    """Due at 0: warm-up. At 1 and 2: before. At 3 and 4: during. At 5: after."""
    found = ledger({0.0: 9.0, 1.0: 0.010, 2.0: 0.010, 3.0: 0.015, 4.0: 0.015, 5.0: 9.0})
    report = Measurements("rolling", "")
    rolling.judge(report, Update(1.0, [3.0, 4.0, 5.0], [0, 0]), found)
    figures = by_name(report)
    assert figures["event → start, p99 before"] == [pytest.approx(10.0)]
    assert figures["event → start, p99: during ÷ before"] == [pytest.approx(1.5)]
    assert figures["one worker replaced in"] == [1.0, 1.0]
    assert all(verdicts(report).values())
    assert [second for second, _ in report.series["p99"]] == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]
    assert [ms for _, ms in report.series["p99"]] == pytest.approx([9000.0, 10.0, 10.0, 15.0, 15.0, 9000.0])


def test_an_update_that_slows_events_down_or_ends_badly_misses_its_goals() -> None:
    report = Measurements("rolling", "")
    found = ledger({1.0: 0.010, 3.0: 0.021}, lost=1)
    rolling.judge(report, Update(1.0, [3.0, 4.0], [1]), found)
    assert [name for name, reached in verdicts(report).items() if not reached] == [
        "event → start, p99: during ÷ before",
        "events lost",
        "exits other than 0",
    ]


async def test_time_to_ready_is_measured_both_ways(database: str, temporal_server: SharedServer) -> None:
    report = await measured(ready, database, temporal_address=temporal_server.address)
    figures = by_name(report)
    assert {ready.SERVERS_FIRST, ready.WORKER_FIRST} <= figures.keys()
    assert 0 < figures[ready.WORKER_FIRST][0] < figures[ready.SERVERS_FIRST][0] + 5.0


async def test_a_drain_under_load_loses_and_doubles_nothing(database: str) -> None:
    report = await measured(drain, database)
    figures = by_name(report)
    assert figures["events lost"] == figures["events doubled"] == figures["exits other than 0"] == [0.0]
    assert figures["SIGTERM to the process's end"][0] > 0
    assert "outbox_bench.temporal_stub.frontend" in report.notes[0]


@pytest.mark.slow("updates two workers under load")
async def test_an_update_under_load_loses_and_doubles_nothing(database: str) -> None:
    report = await measured(rolling, database)
    figures = by_name(report)
    assert figures["events lost"] == figures["events doubled"] == figures["exits other than 0"] == [0.0]
    assert len(figures["one worker replaced in"]) == 2
    assert report.samples["event → start, during"]
