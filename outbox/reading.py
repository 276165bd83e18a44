"""A question that only the worker's event loop can answer, for the threads of its HTTP server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class Answer(NamedTuple, Generic[T]):
    """What was found out, on this process's monotonic clock `at_s`."""

    at_s: float
    value: T

    @property
    def age_s(self) -> float:
        """Seconds since it was so."""
        return monotonic() - self.at_s


class Reading(Generic[T]):
    """The latest answer to one question.

    It is asked only when somebody wants to know and the last answer has grown old, and never twice at once: however
    many wait, and however long the loop or a server takes, one question is out.
    """

    def __init__(self, portal: BlockingPortal, ask: Callable[[], Awaitable[T]], *, every_s: float) -> None:
        """`ask` runs on the portal's event loop, is bounded by itself and raises nothing."""
        self._portal = portal
        self._ask = ask
        self._every_s = every_s
        self._lock = Lock()
        self._asked: Future[None] | None = None
        self._latest: Answer[T] | None = None

    def look(self, wait_s: float) -> Answer[T] | None:
        """The latest answer, None before the first. Waits for a new one where it is due, but no longer than this."""
        asked = self._ask_if_due()
        if asked is not None:
            with suppress(TimeoutError, CancelledError):
                asked.result(wait_s)
        return self._latest

    def _ask_if_due(self) -> Future[None] | None:
        """The question that is out, put now if need be; None while the last answer is young enough."""
        with self._lock:
            if self._asked is not None and not self._asked.done():
                return self._asked
            if self._latest is None or self._latest.age_s >= self._every_s:
                with suppress(RuntimeError):  # the portal is closed: the worker ends
                    self._asked = self._portal.start_task_soon(self._find_out)
                    return self._asked
            return None

    async def _find_out(self) -> None:
        value = await self._ask()
        self._latest = Answer(monotonic(), value)
