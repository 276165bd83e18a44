"""If connecting is cancelled, at any moment, no connection is left open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from outbox.postgres.address import at
from outbox.postgres.connect import attempts, connect, connected
from outbox.postgres.pool import open_pool


class _Interrupted:
    """Awaits `work`, and cancels its own task when the work waits for something for the so many-th time."""

    def __init__(self, work: Awaitable[object], waits: int) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Generator[Any, None, object]:
        steps = self._work.__await__()
        step, *sent = steps.send, None
        while True:
            try:
                awaited = step(*sent)
            except StopIteration as end:
                return end.value
            self._waits -= 1
            if self._waits == 0:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
            try:
                step, *sent = steps.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - it is meant for the work
                step, *sent = steps.throw, error


async def _connect(dsn: str) -> None:
    (await connect(dsn, application_name="test")).terminate()


async def _connected(dsn: str) -> None:
    async with connected(dsn, application_name="test") as connection:
        await connection.fetch("select 1")


async def _attempts(dsn: str) -> None:
    await attempts(at(dsn), application_name="test")


async def _pool(dsn: str) -> None:
    how: dict[str, Any] = {"size": 2, "application_name": "test", "statement_timeout_s": 5.0, "greeting": "select 1"}
    async with open_pool(dsn, **how) as pool, pool.acquire():
        await pool.fetch("select 1")


@pytest.mark.parametrize("use", [_connect, _connected, _attempts, _pool])
async def test_cancelled_connecting_abandons_no_connection(
    database: str, use: Callable[[str], Awaitable[None]]
) -> None:
    for waits in range(1, 200):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            was_cancelled = await _was_cancelled(_Interrupted(use(database), waits))
            gc.collect()
        assert [str(warning.message) for warning in caught] == []
        if not was_cancelled:
            assert waits > 2
            return
    pytest.fail("it never came to its end")


async def _was_cancelled(work: _Interrupted) -> bool:
    """Run it as a task, and keep nothing of it."""

    async def run() -> None:
        await work

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    return task.cancelled() or bool(task.result())
