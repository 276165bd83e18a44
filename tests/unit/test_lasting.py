"""A fault that lasts is reported again, ever more rarely."""

from __future__ import annotations

from outbox.loops.lasting_fault import FIRST_S, LastingFault


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_is_reported_after_half_a_minute_and_then_ever_more_rarely_for_ever() -> None:
    clock, reported = Clock(), []
    fault = LastingFault(clock)
    for _ in range(2 * 3600):
        clock.now_s += 1.0
        if lasted_s := fault.due():
            reported.append(lasted_s)
    pauses = [later - earlier for earlier, later in zip(reported, reported[1:], strict=False)]
    assert reported[0] == FIRST_S
    assert pauses[:4] == [60.0, 120.0, 240.0, 480.0]
    assert set(pauses[5:]) == {600.0}


def test_a_fault_that_begins_again_is_new() -> None:
    clock = Clock()
    fault = LastingFault(clock)
    clock.now_s += FIRST_S
    assert fault.due() == FIRST_S
    fault.begin()
    clock.now_s += FIRST_S - 1
    assert fault.due() == 0.0
