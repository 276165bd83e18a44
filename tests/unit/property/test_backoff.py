"""Backoff, for any base, cap and number of failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.loops.backoff import Backoff

seconds = st.floats(min_value=1e-3, max_value=86_400)
draws = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)
failures = st.integers(min_value=-10, max_value=10**12)


@given(seconds, seconds, failures, draws)
def test_delay_lies_between_half_of_the_least_and_the_cap(base_s: float, cap_s: float, count: int, draw: float) -> None:
    delay_s = Backoff(base_s, cap_s).delay_s(count, draw)
    assert min(base_s, cap_s) / 2 <= delay_s <= cap_s


@given(seconds, seconds, failures, draws)
def test_another_failure_never_shortens_the_delay(base_s: float, cap_s: float, count: int, draw: float) -> None:
    backoff = Backoff(base_s, cap_s)
    assert backoff.delay_s(count, draw) <= backoff.delay_s(count + 1, draw)


@given(seconds, seconds, failures)
def test_random_delay_keeps_the_same_bounds(base_s: float, cap_s: float, count: int) -> None:
    backoff = Backoff(base_s, cap_s)
    assert backoff.delay_s(count, 0.0) <= backoff.delay_s(count) <= backoff.delay_s(count, 1.0)
