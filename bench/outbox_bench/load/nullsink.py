"""Sinks that cost nothing, to measure without Temporal: `OUTBOX_SINK=outbox_bench.load.nullsink:null_sink`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from outbox.model.message import Message
from outbox.model.sink import Action, Delivered, SinkContext, Unavailable

_ANSWER = Delivered("bench", "run", action=Action("start_workflow", "bench"))


class NullSink:
    """Accepts everything at once."""

    async def deliver(self, _message: Message) -> Delivered:
        """Accept."""
        return _ANSWER

    async def probe(self) -> Unavailable | None:
        """Be available."""
        return None


class HangingSink(NullSink):
    """Never answers, so that its worker keeps the leases that it took."""

    async def deliver(self, _message: Message) -> Delivered:
        """Hang until the worker's time-out."""
        await anyio.sleep_forever()
        return _ANSWER


@asynccontextmanager
async def null_sink(_context: SinkContext) -> AsyncIterator[NullSink]:
    """A sink factory."""
    yield NullSink()


@asynccontextmanager
async def hanging_sink(_context: SinkContext) -> AsyncIterator[HangingSink]:
    """A sink factory."""
    yield HangingSink()
