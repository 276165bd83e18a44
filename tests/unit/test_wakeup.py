"""The doorbell: many rings are one, and no ring is lost."""

from __future__ import annotations

import anyio
import pytest

from outbox.wakeup import Wakeup

LONG_S = 60.0


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup()


async def test_ring_before_the_wait_ends_it_at_once(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    with anyio.fail_after(5):
        assert await wakeup.wait(LONG_S) == "listen"


async def test_ring_during_the_wait_ends_it(wakeup: Wakeup) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ring_later, wakeup)
        with anyio.fail_after(5):
            assert await wakeup.wait(LONG_S) == "listen"


async def ring_later(wakeup: Wakeup) -> None:
    await anyio.wait_all_tasks_blocked()
    wakeup.ring("listen")


async def test_silence_ends_by_time(wakeup: Wakeup) -> None:
    assert await wakeup.wait(0.001) is None


async def test_many_rings_are_one(wakeup: Wakeup) -> None:
    for _ in range(1000):
        wakeup.ring("listen")
    assert await wakeup.wait(LONG_S) == "listen"
    assert await wakeup.wait(0.001) is None


async def test_last_ringer_is_named(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    wakeup.ring("retry")
    assert await wakeup.wait(LONG_S) == "retry"


async def test_ring_survives_a_wait_without_time(wakeup: Wakeup) -> None:
    wakeup.ring("listen")
    assert await wakeup.wait(0.0) == "listen"


async def test_ring_after_a_timeout_ends_the_next_wait(wakeup: Wakeup) -> None:
    assert await wakeup.wait(0.0) is None
    wakeup.ring("listen")
    assert await wakeup.wait(LONG_S) == "listen"


async def test_ring_survives_the_cancellation_of_its_waiter(wakeup: Wakeup) -> None:
    heard: list[str | None] = []

    async def listen() -> None:
        heard.append(await wakeup.wait(LONG_S))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        wakeup.ring("listen")
        tasks.cancel_scope.cancel()
    if not heard:  # the cancellation came first; otherwise the waiter has the ring
        heard.append(await wakeup.wait(0.0))
    assert heard == ["listen"]


async def test_cancelled_wait_leaves_the_next_ring_for_the_next_wait(wakeup: Wakeup) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakeup.wait, LONG_S)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    wakeup.ring("listen")
    with anyio.fail_after(5):
        assert await wakeup.wait(LONG_S) == "listen"


async def test_every_ring_ends_a_wait_that_begins_after_the_one_before(wakeup: Wakeup) -> None:
    heard = 0
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            nonlocal heard
            while heard < 200:
                heard += await wakeup.wait(LONG_S) is not None

        tasks.start_soon(listen)
        with anyio.fail_after(5):
            while heard < 200:
                before = heard
                wakeup.ring("listen")
                while heard == before:
                    await anyio.lowlevel.checkpoint()
