"""The relay: claim → deliver → settle. Read the modules in that order; this one only joins them.

store.claim ─▶ Claimer ─▶ Buffer ─▶ Slot × n ─▶ sink.deliver ─▶ conclude ─▶ Settler ─▶ store.complete …
                  ▲                                 │
          Wakeup, Hold ◀──────── unavailable ───────┘
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.model.errors import OutboxError
from outbox.model.events import Drained, DrainStarted
from outbox.relay.buffer import Buffer
from outbox.relay.claim import Claimer
from outbox.relay.context import RelayContext
from outbox.relay.deliver import Deliverer
from outbox.relay.hold import Hold
from outbox.relay.settings import RelaySettings
from outbox.relay.settle import Settler

if TYPE_CHECKING:
    from outbox.model.message import Message, Pause

__all__ = ["Relay", "RelayContext", "RelaySettings"]


class Relay:
    """Moves messages from one store to one sink until stopped. One instance runs once."""

    def __init__(self, context: RelayContext) -> None:
        self._store = context.store
        self._emit = context.emit
        self._watchdog = context.watchdog
        self._settings = settings = context.settings
        self._stopped = anyio.Event()
        self._buffer = Buffer(
            concurrency=settings.concurrency,
            prefetch=settings.prefetch,
            batch=settings.batch,
            held_bytes=settings.held_bytes,
        )
        self.hold = Hold(context)
        self._settler = Settler(context, self._buffer)
        self._deliverer = Deliverer(context, self._buffer, self.hold, self._settler)
        self._claimer = Claimer(context, self._buffer, self.hold, self._settler)

    @property
    def outstanding(self) -> int:
        """How many messages are claimed and not settled."""
        return self._buffer.outstanding

    @property
    def rate_limit(self) -> float | None:
        """Deliveries a second that the sink's throttling allows; None means no limit."""
        return self._deliverer.limits.pace.rate

    @property
    def in_flight(self) -> int:
        """How many deliveries wait for the sink's answer."""
        return self._deliverer.in_flight

    def stop(self) -> None:
        """Begin the shutdown: claim nothing more, release what has not begun, finish the rest. Safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._emit(DrainStarted(self.in_flight))
            self._claimer.stop()
            self._deliverer.drain()

    def pause(self, pauses: list[Pause]) -> None:
        """Give back what is claimed, not begun and paused. Claims do not bring it again before it is resumed."""
        self._deliverer.pause(partial(_is_paused, pauses) if pauses else None)

    async def run(self) -> None:
        """Relay until stopped and drained. Cancelling it abandons what is in flight to the leases' expiry."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._settler.run)
            async with anyio.create_task_group() as duties:
                duties.start_soon(self._deliverer.watch)
                duties.start_soon(self.hold.run, self._deliverer.conclude_doubt)
                await self._work()
                duties.cancel_scope.cancel()
            for doubt in self.hold.take_doubts():  # no probe will come
                self._deliverer.conclude_doubt(doubt.delivery, doubt.outcome, well=False)
            self._watchdog.forget("deliver")
            self._watchdog.forget("probe")
            self._settler.close()
            tasks.cancel_scope.deadline = anyio.current_time() + self._settings.settle_timeout_s
        if self._settler.keys_moved:
            with suppress(OutboxError):  # what waits behind our last messages is for others, who cannot know
                await self._store.wake()

    async def _work(self) -> None:
        """Claim and deliver until stopped; then give the slots the drain's time to finish."""
        async with anyio.create_task_group() as work:
            work.start_soon(self._claimer.run)
            for slot in self._deliverer.slots:
                work.start_soon(self._deliverer.work, slot)
            await self._stopped.wait()
            began_s = monotonic()
            work.cancel_scope.deadline = anyio.current_time() + self._settings.drain_timeout_s
        self._emit(Drained(monotonic() - began_s, abandoned=self.in_flight))


def _is_paused(pauses: list[Pause], message: Message) -> bool:
    return any(pause.holds(message) for pause in pauses)
