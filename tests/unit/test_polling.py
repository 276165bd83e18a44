"""The rhythm of polling, and what keeps a crowd from answering every ring at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.relay.polling import Polling


def pauses(polling: Polling, count: int, *, attended: bool) -> list[float]:
    return [polling.pause_s(attended=attended, found=False) for _ in range(count)]


def test_after_work_the_next_look_is_near() -> None:
    polling = Polling(attended_s=10.0, alone_s=1.0)
    pauses(polling, 20, attended=False)
    assert polling.pause_s(attended=False, found=True) <= 0.05
    assert polling.pause_s(attended=False, found=False) <= 0.1


@pytest.mark.parametrize(("attended", "interval_s"), [(True, 10.0), (False, 1.0)])
def test_silence_slows_polling_down_to_its_interval(attended: bool, interval_s: float) -> None:
    settled = pauses(Polling(attended_s=10.0, alone_s=1.0), 30, attended=attended)[10:]
    assert min(settled) >= interval_s * 0.8
    assert max(settled) <= interval_s


def test_losing_the_source_makes_polling_quick_at_once() -> None:
    polling = Polling(attended_s=10.0, alone_s=1.0)
    pauses(polling, 30, attended=True)
    assert polling.pause_s(attended=False, found=False) <= 1.0


def test_workers_that_started_together_drift_apart() -> None:
    together = [pauses(Polling(attended_s=10.0, alone_s=1.0), 10, attended=False)[-1] for _ in range(100)]
    assert max(together) - min(together) > 0.1


def test_lone_worker_answers_at_once_also_when_a_claim_brought_the_next_rings_message() -> None:
    polling = Polling(attended_s=10.0, alone_s=1.0)
    for _ in range(100):
        polling.answered(found=True)
        polling.answered(found=False)
        assert polling.answer_s() == 0.0


def test_crowd_spreads_its_answers_and_the_first_still_comes_soon() -> None:
    crowd = [Polling(attended_s=10.0, alone_s=1.0) for _ in range(100)]
    for _ in range(100):  # a hundred lone messages: one worker gets each, ninety-nine come too late
        answers = [worker.answer_s() for worker in crowd]
        first = answers.index(min(answers))
        for n, worker in enumerate(crowd):
            worker.answered(found=n == first)
    answers = sorted(worker.answer_s() for worker in crowd)
    assert answers[0] < 0.02
    assert answers[50] > 0.05, "half of them answer so late that further rings become one with this"


def test_worker_left_alone_answers_at_once_again() -> None:
    polling = Polling(attended_s=10.0, alone_s=1.0)
    for _ in range(100):
        polling.answered(found=False)
    for _ in range(10):
        polling.answered(found=True)
    assert polling.answer_s() == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=200))
def test_no_pause_and_no_answer_is_ever_longer_than_its_bound(rounds: list[tuple[bool, bool, bool]]) -> None:
    polling = Polling(attended_s=10.0, alone_s=1.0)
    for attended, found, in_time in rounds:
        assert 0.0 < polling.pause_s(attended=attended, found=found) <= (10.0 if attended else 1.0)
        polling.answered(found=in_time)
        assert 0.0 <= polling.answer_s() <= 0.25
