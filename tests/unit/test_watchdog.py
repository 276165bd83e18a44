"""A loop's promise to be heard from."""

from __future__ import annotations

import time

import anyio

from outbox.loops.watchdog import LOOP, Watchdog


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_promise_is_broken_when_its_time_is_over_and_kept_by_another_one() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    watchdog.expect("claim", 10.0)
    clock.now_s += 10.0
    assert watchdog.overdue_s() == {}
    clock.now_s += 1.5
    assert watchdog.overdue_s() == {"claim": 1.5}
    watchdog.expect("claim", 10.0)
    assert watchdog.overdue_s() == {}


def test_a_loop_that_waits_for_another_is_released_from_its_promise() -> None:
    clock = Clock()
    watchdog = Watchdog(clock)
    watchdog.expect("claim", 10.0)
    watchdog.forget("claim")
    watchdog.forget("claim")
    clock.now_s += 100.0
    assert watchdog.overdue_s() == {}


async def test_a_stuck_event_loop_shows_its_lag() -> None:
    watchdog = Watchdog()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watchdog.beat)
        await anyio.lowlevel.checkpoint()
        time.sleep(1.2)  # is what it is about
        assert watchdog.lag_s >= 0.15
        while not watchdog._lags_s:
            await anyio.lowlevel.checkpoint()
        assert watchdog.lag_s >= 0.15
        tasks.cancel_scope.cancel()
    assert LOOP not in watchdog.overdue_s()
