"""A question that only the worker's event loop can answer, for the threads of its HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Condition
from time import monotonic
from typing import Generic, NamedTuple, NoReturn, TypeVar

T = TypeVar("T")


class Answer(NamedTuple, Generic[T]):
    """What was found out, on this process's monotonic clock `at_s`."""

    at_s: float
    value: T

    @property
    def age_s(self) -> float:
        """Seconds since it was so."""
        return monotonic() - self.at_s


class CachedAnswer(Generic[T]):
    """The latest answer to one question.

    It is asked only on request and when the last answer is old, and never twice at once: however
    many wait, and however long the loop or a server takes, one question is out.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[T]],
        *,
        every_s: float,
        again_s: float | None = None,
        well: Callable[[T], bool] = lambda _: True,
    ) -> None:
        """`ask` is bounded by itself. What it raises leaves the last answer as it is.

        An answer grows old in `every_s` seconds; in `again_s`, if that is given and all is not `well`.
        """
        self._ask = ask
        self._well = well
        self._every_s, self._again_s = every_s, every_s if again_s is None else again_s
        self._news = Condition()
        """Guards what follows; notified of each answer."""
        self._wake: Callable[[], object] | None = None
        """Wakes the loop that answers; None while there is none."""
        self._out = False
        self._latest: Answer[T] | None = None

    def look(self, wait_s: float) -> Answer[T] | None:
        """The latest answer, None before the first. Waits for a new one where it is due, but no longer than this."""
        with self._news:
            before = self._latest
            if self._wake is None or (before is not None and before.age_s < self._lasts_s(before.value)):
                return before
            if not self._out:  # it returns at once, also when the loop is stuck
                self._out = True
                self._wake()
            self._news.wait_for(lambda: self._latest is not before or not self._out, wait_s)
            return self._latest

    def _lasts_s(self, value: T) -> float:
        return self._every_s if self._well(value) else self._again_s

    async def answer(self) -> NoReturn:
        """Answer, on the event loop that runs this, until cancelled."""
        loop, wanted = asyncio.get_running_loop(), asyncio.Event()
        with self._news:
            self._wake = lambda: loop.call_soon_threadsafe(wanted.set)  # anyio would wait for the loop
        try:
            while True:
                await wanted.wait()
                wanted.clear()
                with suppress(Exception):
                    value = await self._ask()
                    self._latest = Answer(monotonic(), value)
                self._notify()
        finally:
            self._wake = None
            self._notify()

    def _notify(self) -> None:
        with self._news:
            self._out = False
            self._news.notify_all()
