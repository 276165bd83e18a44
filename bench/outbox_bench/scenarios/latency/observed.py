"""A real worker with a time for every step: when its doorbell rang, and when it claimed, delivered and settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import anyio

from outbox.model.errors import OutboxError
from outbox.model.events import Buried, Claimed, Completed, Event, Held, ModeChanged, Retried, SourceLost, SourceReady
from outbox.worker.worker import Worker
from outbox_temporal.sink import temporal_sink

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.store.messages import Store
    from outbox.wakeup.doorbell import Wakeup
    from outbox.wakeup.selection import Source
    from outbox.worker.switches import Switches

_READY_WITHIN_S = 20.0


class Sightings:
    """A subscriber that notes when what happened, in monotonic seconds."""

    def __init__(self) -> None:
        self.hints: list[float] = []
        """Every ring of the doorbell by a source, in order."""
        self.claimed: dict[UUID, float] = {}
        self.acknowledged: dict[UUID, float] = {}
        self.settled: dict[UUID, float] = {}
        self.troubles: Counter[str] = Counter()
        """What should not happen in a benchmark, and how often."""
        self.ready: set[str] = set()
        self.mode: str | None = None
        self._changed = anyio.Event()

    def __call__(self, event: Event) -> None:
        """Take one event down."""
        now_s = monotonic()
        match event:
            case Claimed(messages):
                self.claimed |= dict.fromkeys((message.message_id for message in messages), now_s)
                return
            case Completed(settlements):
                for settlement in settlements:
                    self.acknowledged[settlement.message.message_id] = settlement.delivered_s
                    self.settled[settlement.message.message_id] = now_s
            case SourceReady(source):
                self.ready.add(source)
            case ModeChanged(mode):
                self.mode = mode
            case SourceLost(source, error):
                self.troubles[f"{source} lost: {error}"] += 1
            case Held(outcome):
                self.troubles[f"Temporal unavailable: {outcome.detail}"] += 1
            case Retried(_, outcome):
                self.troubles[f"retried: {outcome.kind}"] += 1
            case Buried(_, _, outcome):
                self.troubles[f"dead letter: {outcome.detail}"] += 1
            case _:
                return
        self._changed.set()

    async def acknowledgement(self, message_id: UUID) -> float:
        """When Temporal acknowledged this message's start; waits for it."""
        await self._until(lambda: message_id in self.acknowledged)
        return self.acknowledged[message_id]

    async def settlements(self, count: int) -> None:
        """Wait until this many messages are settled."""
        await self._until(lambda: len(self.settled) >= count)

    async def subscribed(self, source: str) -> None:
        """Wait until a source is ready. Raises OutboxError where it does not become so, or may not run."""
        with anyio.move_on_after(_READY_WITHIN_S):
            await self._until(lambda: source in self.ready)
            return
        why = next(iter(self.troubles), "`outbox mode` says otherwise" if self.mode != source else "no error was seen")
        raise OutboxError(f"the worker's source {source} was not ready within {_READY_WITHIN_S:.0f} s: {why}")

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed = anyio.Event()
            await self._changed.wait()


class _Observed(Worker):
    """Reports when its doorbell rings. That is not an event, because it happens too often in production."""

    hints: list[float]

    def _sources(self, store: Store, wakeup: Wakeup, control: Switches) -> dict[str, Source]:
        ring, hints = wakeup.ring, self.hints

        def note(source: str) -> None:
            hints.append(monotonic())
            ring(source)

        wakeup.ring = note  # type: ignore[method-assign]
        return super()._sources(store, wakeup, control)


@asynccontextmanager
async def relaying(settings: Settings) -> AsyncIterator[Sightings]:
    """A worker in front of Temporal for the block, its source subscribed; drained at the end."""
    seen = Sightings()
    worker = _Observed(settings, temporal_sink, seen)
    worker.hints = seen.hints
    async with anyio.create_task_group() as tasks:
        await tasks.start(worker.run)
        if settings.mode != "poll":
            await seen.subscribed(settings.mode)
        yield seen
        worker.stop()
