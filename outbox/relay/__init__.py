"""The relay: claim → deliver → settle. Read the modules in that order; this one only joins them.

store.claim ──▶ Claimer ──▶ Buffer ─▶ Slot × concurrency ──▶ judge ──▶ Settler ──▶ store.complete …
                  ▲  ▲                    │ sink.deliver        │
             Wakeup  Hold ◀───────────────┴── unavailable ──────┘
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.watchdog import Watchdog
from outbox.model.errors import OutboxError
from outbox.model.events import Drained, DrainStarted, Emit
from outbox.relay.buffer import Buffer
from outbox.relay.claim import Claimer
from outbox.relay.deliver import OVERRUN_S, Deliverer
from outbox.relay.hold import Hold
from outbox.relay.pace import Pace
from outbox.relay.settings import RelaySettings
from outbox.relay.settle import Settler

if TYPE_CHECKING:
    from outbox.model.message import Pause
    from outbox.model.sink import Sink
    from outbox.store.messages import Store
    from outbox.wakeup.doorbell import Wakeup

__all__ = ["Relay", "RelaySettings"]


class Relay:
    """Moves messages from one store to one sink until stopped. One instance runs once."""

    def __init__(
        self,
        store: Store,
        sink: Sink,
        wakeup: Wakeup,
        emit: Emit,
        settings: RelaySettings,
        *,
        worker_id: int,
        watchdog: Watchdog,
        on_other_workers_busy: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_held` is called whenever other workers are seen to hold messages."""
        self._store = store
        self._emit = emit
        self._settings = settings
        self._stopped = anyio.Event()
        probe_timeout_s = settings.deliver_timeout_s + OVERRUN_S
        self.hold = Hold(sink, wakeup, emit, settings.probe, watchdog, probe_timeout_s=probe_timeout_s)
        self.pace = Pace()
        self.buffer = Buffer(
            concurrency=settings.concurrency,
            prefetch=settings.prefetch,
            batch=settings.batch,
            held_bytes=settings.held_bytes,
        )
        self._watchdog = watchdog
        self._settler = Settler(store, self.buffer, wakeup, emit, settings, watchdog)
        self._claimer = Claimer(
            store,
            self.buffer,
            self.hold,
            self._settler,
            wakeup,
            emit,
            settings,
            watchdog,
            worker_id,
            on_other_workers_busy,
        )
        self._deliverer = Deliverer(sink, self.buffer, self.hold, self._settler, self.pace, emit, settings, watchdog)

    @property
    def in_flight(self) -> int:
        """How many messages the sink is being asked about at this moment."""
        return self._deliverer.in_flight

    def stop(self) -> None:
        """Begin the shutdown: claim nothing more, release what is not begun, finish what is. Safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._emit(DrainStarted(self.in_flight))
            self._claimer.stop()
            self._deliverer.drain()

    def pause(self, pauses: list[Pause]) -> None:
        """Give back what is claimed, not begun and paused. Claims do not bring it again before it is resumed."""
        self._deliverer.is_paused = None
        if pauses:
            self._deliverer.is_paused = lambda message: any(pause.holds(message) for pause in pauses)
            self._deliverer.turn_out("pause", self._deliverer.is_paused)

    async def run(self) -> None:
        """Relay until stopped and drained. Cancelling it abandons what is in flight to the leases' expiry."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._settler.run)
            async with anyio.create_task_group() as duties:
                duties.start_soon(self._deliverer.watch)
                duties.start_soon(self.hold.run)
                await self._work()
                duties.cancel_scope.cancel()
            self.hold.dismiss()
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
