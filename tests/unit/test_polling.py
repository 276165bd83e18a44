"""The rhythm of polling, and what keeps a crowd from answering every ring at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.relay.polling import Polling


def pauses(polling: Polling, count: int, *, has_trusted_source: bool) -> list[float]:
    return [polling.pause_s(has_trusted_source=has_trusted_source, found=False) for _ in range(count)]


def test_after_work_the_next_look_is_near() -> None:
    polling = Polling(poll_interval_s=10.0, fallback_interval_s=1.0)
    pauses(polling, 20, has_trusted_source=False)
    assert polling.pause_s(has_trusted_source=False, found=True) <= 0.05
    assert polling.pause_s(has_trusted_source=False, found=False) <= 0.1


@pytest.mark.parametrize(("has_trusted_source", "interval_s"), [(True, 10.0), (False, 1.0)])
def test_silence_slows_polling_down_to_its_interval(has_trusted_source: bool, interval_s: float) -> None:
    settled = pauses(Polling(poll_interval_s=10.0, fallback_interval_s=1.0), 30, has_trusted_source=has_trusted_source)[
        10:
    ]
    assert min(settled) >= interval_s * 0.8
    assert max(settled) <= interval_s


def test_losing_the_source_makes_polling_quick_at_once() -> None:
    polling = Polling(poll_interval_s=10.0, fallback_interval_s=1.0)
    pauses(polling, 30, has_trusted_source=True)
    assert polling.pause_s(has_trusted_source=False, found=False) <= 1.0


def test_workers_that_started_together_drift_apart() -> None:
    together = [
        pauses(Polling(poll_interval_s=10.0, fallback_interval_s=1.0), 10, has_trusted_source=False)[-1]
        for _ in range(100)
    ]
    assert max(together) - min(together) > 0.1


def test_lone_worker_claims_at_once_also_if_a_claim_brought_the_message_of_the_next_ring() -> None:
    polling = Polling(poll_interval_s=10.0, fallback_interval_s=1.0)
    for _ in range(100):
        polling.note_wakeup(found=True)
        polling.note_wakeup(found=False)
        assert polling.crowd_delay_s() == 0.0


def test_crowd_spreads_its_answers_and_the_first_still_comes_soon() -> None:
    crowd = [Polling(poll_interval_s=10.0, fallback_interval_s=1.0) for _ in range(100)]
    for _ in range(100):  # a hundred lone messages: one worker gets each, ninety-nine come too late
        answers = [worker.crowd_delay_s() for worker in crowd]
        first = answers.index(min(answers))
        for n, worker in enumerate(crowd):
            worker.note_wakeup(found=n == first)
    answers = sorted(worker.crowd_delay_s() for worker in crowd)
    assert answers[0] < 0.02
    assert answers[50] > 0.05, "half of them answer so late that further rings become one with this"


def test_worker_left_alone_answers_at_once_again() -> None:
    polling = Polling(poll_interval_s=10.0, fallback_interval_s=1.0)
    for _ in range(100):
        polling.note_wakeup(found=False)
    for _ in range(10):
        polling.note_wakeup(found=True)
    assert polling.crowd_delay_s() == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=200))
def test_no_pause_and_no_answer_is_ever_longer_than_its_bound(rounds: list[tuple[bool, bool, bool]]) -> None:
    polling = Polling(poll_interval_s=10.0, fallback_interval_s=1.0)
    for has_trusted_source, found, in_time in rounds:
        assert (
            0.0
            < polling.pause_s(has_trusted_source=has_trusted_source, found=found)
            <= (10.0 if has_trusted_source else 1.0)
        )
        polling.note_wakeup(found=in_time)
        assert 0.0 <= polling.crowd_delay_s() <= 0.25
