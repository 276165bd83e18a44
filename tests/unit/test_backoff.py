"""Backoff: it doubles, it is capped, and it spreads."""

from __future__ import annotations

import pytest

from outbox.loops.backoff import Backoff

BACKOFF = Backoff(base_s=1.0, cap_s=60.0)


@pytest.mark.parametrize(("failures", "longest_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10**9, 60)])
def test_delay_doubles_up_to_the_cap(failures: int, longest_s: float) -> None:
    assert BACKOFF.delay_s(failures, draw=1.0) == longest_s
    assert BACKOFF.delay_s(failures, draw=0.0) == longest_s / 2


@pytest.mark.parametrize("failures", [0, -5])
def test_no_failure_waits_no_longer_than_the_first(failures: int) -> None:
    assert BACKOFF.delay_s(failures, draw=1.0) == 1.0


def test_clients_that_failed_together_spread() -> None:
    assert len({BACKOFF.delay_s(4) for _ in range(100)}) > 90
