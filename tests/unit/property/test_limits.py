"""Pace, with any answers of the sink at any time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outbox.relay.pace import Pace

SLOWEST = 0.5
pauses = st.floats(min_value=0.0, max_value=30.0)


class PaceMachine(RuleBasedStateMachine):
    """A clock that only goes forward, deliveries, acceptances and refusals in any order."""

    @initialize(start_s=st.floats(min_value=0.0, max_value=1e7))
    def begin(self, start_s: float) -> None:
        self.pace = Pace()
        self.now_s = start_s
        self.pace.tick(start_s)
        self.last_go_s = float("-inf")

    @rule(pause_s=pauses)
    def time_passes(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.pace.tick(self.now_s)

    @rule(count=st.integers(min_value=1, max_value=10_000))
    def sink_accepts(self, count: int) -> None:
        before = self.pace.rate
        self.pace.accepted += count
        lifted = self.pace.speed_up(self.now_s)
        assert lifted == (before is not None and self.pace.rate is None)
        assert self.pace.rate is None or (before is not None and self.pace.rate >= before)

    @rule()
    def sink_throttles(self) -> None:
        before = self.pace.rate
        cut = self.pace.slow_down(self.now_s)
        assert self.pace.rate is not None
        assert cut or self.pace.rate == before
        if cut and before is not None:
            assert self.pace.rate <= max(before, SLOWEST)

    @rule()
    def delivery_waits_for_its_turn(self) -> None:
        wait_s = self.pace.reserve(self.now_s)
        assert wait_s >= 0.0
        if self.pace.rate is None:
            assert wait_s == 0.0
        self.last_go_s = self.now_s + wait_s

    @invariant()
    def rate_keeps_above_its_floor(self) -> None:
        if hasattr(self, "pace") and self.pace.rate is not None:
            assert self.pace.rate >= SLOWEST


TestPace = PaceMachine.TestCase


@given(
    accepted=st.integers(min_value=0, max_value=10_000),
    arrivals=st.lists(st.floats(min_value=0.0, max_value=1.0), min_size=1, max_size=200),
)
def test_deliveries_are_never_faster_than_the_rate(accepted: int, arrivals: list[float]) -> None:
    pace = Pace()
    pace.tick(100.0)
    pace.accepted = accepted
    pace.slow_down(101.0)
    assert pace.rate is not None
    now_s, times = 101.0, [101.0]
    for pause_s in arrivals:
        now_s += pause_s
        times.append(now_s + pace.reserve(now_s))
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert min(gaps) >= 1.0 / pace.rate - 1e-6


@given(accepted=st.integers(min_value=0, max_value=100_000), cuts=st.integers(min_value=1, max_value=30))
def test_pace_recovers_once_the_sink_throttles_no_more(accepted: int, cuts: int) -> None:
    pace = Pace()
    pace.tick(0.0)
    now_s = 1.0
    pace.accepted = accepted
    for _ in range(cuts):
        pace.slow_down(now_s)
        now_s += 1.5
    for second in range(60):
        pace.accepted += 1
        pace.speed_up(now_s + second)
    assert pace.rate is None
