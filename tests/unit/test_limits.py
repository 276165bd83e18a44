"""Pace: none until throttled, then down at once and up slowly."""

from __future__ import annotations

import pytest

from outbox.relay.pace import ConcurrencyLimit, Pace

START_S = 1_000_000.0
"""A monotonic clock shows the machine's uptime, not the program's."""


@pytest.fixture
def pace() -> Pace:
    """A pace that has begun to tick, as in the relay before the first delivery."""
    pace = Pace()
    pace.tick(START_S)
    return pace


def test_unthrottled_relay_never_waits(pace: Pace) -> None:
    assert [pace.reserve(START_S) for _ in range(1000)] == [0.0] * 1000


def test_first_cut_goes_below_what_the_sink_took(pace: Pace) -> None:
    pace.accepted = 1000
    pace.tick(START_S + 1)
    assert pace.slow_down(START_S + 1.5)
    assert pace.rate == pytest.approx(700)


def test_cut_in_the_first_second_uses_the_rate_that_the_sink_accepted(pace: Pace) -> None:
    pace.accepted = 200
    pace.slow_down(START_S + 0.3)
    assert pace.rate == pytest.approx(140)


def test_refusals_within_a_second_are_one_cut(pace: Pace) -> None:
    pace.accepted = 1000
    pace.tick(START_S + 1)
    assert pace.slow_down(START_S + 2)
    assert not any(pace.slow_down(START_S + 2 + n / 100) for n in range(99))
    assert pace.slow_down(START_S + 3.01)


def test_sink_that_refuses_everything_is_still_asked(pace: Pace) -> None:
    for second in range(1, 60):
        pace.slow_down(START_S + second * 2)
    assert pace.rate == 0.5
    first = pace.reserve(START_S + 200)
    assert pace.reserve(START_S + 200) - first == pytest.approx(2.0)


def test_rate_grows_until_the_limit_is_lifted(pace: Pace) -> None:
    pace.accepted = 100
    pace.tick(START_S + 1)
    pace.slow_down(START_S + 1)
    rates = [pace.rate]
    for second in range(2, 60):
        lifted = pace.speed_up(START_S + second)
        rates.append(pace.rate)
        if lifted:
            break
    assert rates[-1] is None
    assert rates[:-1] == sorted(rates[:-1])
    assert 20 < len(rates) < 30


def test_speeding_up_an_unlimited_pace_changes_nothing(pace: Pace) -> None:
    assert not pace.speed_up(START_S + 100)
    assert pace.rate is None


def test_lifted_limit_lets_everything_through(pace: Pace) -> None:
    pace.slow_down(START_S + 1)
    pace.speed_up(START_S + 10_000)
    assert pace.rate is None
    assert pace.reserve(START_S + 10_000) == 0.0


class TestWidth:
    def test_calls_that_time_out_together_are_one_cut(self) -> None:
        width = ConcurrencyLimit(32)
        assert width.narrow(START_S, START_S + 1, in_flight=32)
        assert not width.narrow(START_S + 0.5, START_S + 1.1, in_flight=31)
        assert width.allowed == 16

    def test_it_is_cut_below_what_was_in_flight(self) -> None:
        width = ConcurrencyLimit(32)
        width.narrow(START_S, START_S + 1, in_flight=6)
        assert width.allowed == 3

    def test_it_is_never_less_than_one(self) -> None:
        width = ConcurrencyLimit(32)
        for second in range(10):
            width.narrow(START_S + second, START_S + second + 0.5, in_flight=32)
        assert width.allowed == 1

    def test_it_grows_by_one_with_each_round_of_answers_and_ends_at_all(self) -> None:
        width = ConcurrencyLimit(8)
        width.narrow(START_S, START_S + 1, in_flight=8)
        assert [width.widen() for _ in range(4)] == [False, False, False, True]
        assert width.allowed == 5
        for _ in range(100):
            width.widen()
        assert width.allowed == 8
