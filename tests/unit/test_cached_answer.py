"""A question for the event loop: one at a time, not too often, and no caller waits for long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import monotonic

import anyio
from anyio import to_thread

from outbox.observability.cached_answer import CachedAnswer

LONG_S = 20.0


class Question:
    """Answers with how often it was asked, once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.may_answer = anyio.Event()
        self.fails = False

    async def ask(self) -> int:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.may_answer.wait()
        self.at_once -= 1
        if self.fails:
            raise LookupError
        return self.asked


@asynccontextmanager
async def answered(*readings: CachedAnswer[int]) -> AsyncIterator[None]:
    """While the event loop answers them."""
    async with anyio.create_task_group() as tasks:
        for reading in readings:
            tasks.start_soon(reading.answer)
        await anyio.wait_all_tasks_blocked()
        yield
        tasks.cancel_scope.cancel()


async def look(reading: CachedAnswer[int], wait_s: float) -> int | None:
    answer = await to_thread.run_sync(reading.look, wait_s)
    return None if answer is None else answer.value


async def test_many_requests_at_once_are_one_query() -> None:
    question = Question()
    reading = CachedAnswer(question.ask, every_s=0.0)
    async with answered(reading):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(look, reading, LONG_S)
            while not question.asked:
                await anyio.sleep(0)
            question.may_answer.set()
        assert question.most_at_once == 1


async def test_a_recent_answer_is_reused_and_an_old_one_is_not() -> None:
    question = Question()
    question.may_answer.set()
    seldom, often = CachedAnswer(question.ask, every_s=LONG_S), CachedAnswer(question.ask, every_s=0.0)
    async with answered(seldom, often):
        assert [await look(seldom, LONG_S), await look(seldom, LONG_S)] == [1, 1]
        assert [await look(often, LONG_S), await look(often, LONG_S)] == [2, 3]


async def test_an_answer_that_is_not_well_grows_old_sooner() -> None:
    question = Question()
    question.may_answer.set()
    reading = CachedAnswer(question.ask, every_s=LONG_S, again_s=0.0, well=lambda asked: asked > 2)
    async with answered(reading):
        assert [await look(reading, LONG_S) for _ in range(5)] == [1, 2, 3, 3, 3]


async def test_no_caller_waits_longer_than_asked_and_the_late_answer_is_there_for_the_next() -> None:
    question = Question()
    reading = CachedAnswer(question.ask, every_s=LONG_S)
    async with answered(reading):
        began_s = monotonic()
        assert await look(reading, 0.05) is None
        assert await look(reading, 0.05) is None
        assert monotonic() - began_s < LONG_S / 4
        question.may_answer.set()
        assert await look(reading, LONG_S) == 1
        assert question.asked == 1


async def test_no_caller_waits_for_a_stuck_loop() -> None:
    question = Question()
    question.may_answer.set()
    reading = CachedAnswer(question.ask, every_s=0.0)
    async with answered(reading):
        with ThreadPoolExecutor(2) as threads:
            looks = [threads.submit(reading.look, 0.05) for _ in range(4)]
            assert [each.result(LONG_S / 4) for each in looks] == [None] * 4  # blocks the loop meanwhile
        assert await look(reading, LONG_S) is not None


async def test_what_was_known_is_still_reported_while_the_next_answer_is_late_or_fails() -> None:
    question = Question()
    question.may_answer.set()
    reading = CachedAnswer(question.ask, every_s=0.0)
    async with answered(reading):
        assert await look(reading, LONG_S) == 1
        question.may_answer = anyio.Event()
        assert await look(reading, 0.05) == 1
        question.fails = True
        question.may_answer.set()
        assert await look(reading, LONG_S) == 1
        question.fails = False
        known = await look(reading, LONG_S)
        assert known is not None
        assert known > 2


async def test_after_the_worker_has_ended_nothing_is_asked() -> None:
    question = Question()
    question.may_answer.set()
    reading = CachedAnswer(question.ask, every_s=0.0)
    assert await look(reading, LONG_S) is None
    async with answered(reading):
        assert await look(reading, LONG_S) == 1
    assert await look(reading, LONG_S) == 1
    assert question.asked == 1


async def test_no_caller_waits_after_the_end() -> None:
    question = Question()
    reading = CachedAnswer(question.ask, every_s=0.0)
    began_s = monotonic()
    async with anyio.create_task_group() as lookers, answered(reading):
        lookers.start_soon(look, reading, LONG_S)
        while not question.asked:
            await anyio.sleep(0)
    assert monotonic() - began_s < LONG_S / 4
