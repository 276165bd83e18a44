"""A question for the event loop: one at a time, not too often, and nobody waits for long."""

from __future__ import annotations

from time import monotonic

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal

from outbox.reading import Reading

LONG_S = 20.0


class Question:
    """Answers with how often it was asked, once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.may_answer = anyio.Event()

    async def ask(self) -> int:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        self.at_once -= 1
        return self.asked


async def look(reading: Reading[int], wait_s: float) -> int | None:
    answer = await to_thread.run_sync(reading.look, wait_s)
    return None if answer is None else answer.value


async def test_many_who_ask_at_once_put_one_question() -> None:
    question = Question()
    async with BlockingPortal() as portal:
        reading = Reading(portal, question.ask, every_s=0.0)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(look, reading, LONG_S)
            while not question.asked:
                await anyio.lowlevel.checkpoint()
            question.may_answer.set()
        assert question.most_at_once == 1


async def test_a_young_answer_is_not_asked_for_again_and_an_old_one_is() -> None:
    question = Question()
    question.may_answer.set()
    async with BlockingPortal() as portal:
        slow, quick = Reading(portal, question.ask, every_s=LONG_S), Reading(portal, question.ask, every_s=0.0)
        assert [await look(slow, LONG_S), await look(slow, LONG_S)] == [1, 1]
        assert [await look(quick, LONG_S), await look(quick, LONG_S)] == [2, 3]


async def test_nobody_waits_longer_than_asked_and_the_late_answer_is_there_for_the_next() -> None:
    question = Question()
    async with BlockingPortal() as portal:
        reading = Reading(portal, question.ask, every_s=LONG_S)
        began_s = monotonic()
        assert await look(reading, 0.05) is None
        assert await look(reading, 0.05) is None
        assert monotonic() - began_s < LONG_S / 4
        question.may_answer.set()
        assert await look(reading, LONG_S) == 1
        assert question.asked == 1


async def test_what_was_known_is_still_told_while_the_next_answer_is_late() -> None:
    question = Question()
    question.may_answer.set()
    async with BlockingPortal() as portal:
        reading = Reading(portal, question.ask, every_s=0.0)
        assert await look(reading, LONG_S) == 1
        question.may_answer = anyio.Event()
        assert await look(reading, 0.05) == 1
        question.may_answer.set()


async def test_after_the_worker_has_ended_nothing_is_asked() -> None:
    question = Question()
    question.may_answer.set()
    async with BlockingPortal() as portal:
        reading = Reading(portal, question.ask, every_s=0.0)
        assert await look(reading, LONG_S) == 1
    assert await look(reading, LONG_S) == 1
    assert question.asked == 1


async def test_a_question_that_is_given_up_at_the_end_leaves_nobody_waiting() -> None:
    question = Question()
    async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
        reading = Reading(portal, question.ask, every_s=0.0)
        tasks.start_soon(look, reading, LONG_S)
        while not question.asked:
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(LONG_S / 4):
            await portal.stop(cancel_remaining=True)
