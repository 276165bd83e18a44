"""The worker: one process's pool, sink, sources, relay and maintenance, started together and drained in order."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import TaskStatus

from outbox import __version__
from outbox.loops.backoff import Backoff
from outbox.loops.retry import DatabaseRetry
from outbox.model.errors import DatabaseUnavailable, OutboxError
from outbox.model.events import Emit, Events, WorkerStarted
from outbox.model.sink import SinkContext, SinkFactory
from outbox.observability.state import WorkerState
from outbox.postgres.connect import place
from outbox.postgres.errors import translated_errors
from outbox.postgres.pool import open_pool
from outbox.relay import Relay
from outbox.store.messages import Store
from outbox.store.migrations import require_current
from outbox.store.sql import call
from outbox.wakeup import listen, realtime
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.selection import Source, SourceSelection
from outbox.worker.maintenance import Maintenance
from outbox.worker.presence import Presence
from outbox.worker.rescue import Rescue
from outbox.worker.switches import Switches

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.postgres.pool import Pool

_POOL_SIZE = 4
"""Claim, settle, maintenance, and one to spare while a broken connection is replaced."""
_STATEMENT_TIMEOUT_S = 10.0
_FAREWELL_S = 2.0
_START = Backoff(0.1, 1.0)
"""How a worker that starts looks for its database: it has nothing else to do, and nobody to disturb with it."""
T = TypeVar("T")


class Worker:
    """One relay process. `stop` begins the drain; `run` returns when it is over."""

    def __init__(self, settings: Settings, sink_factory: SinkFactory, emit: Emit) -> None:
        self._settings = settings
        self._sink_factory = sink_factory
        self.state = state = WorkerState(
            worker=settings.worker_name, schema=settings.schema_name, sink_timeout_s=settings.deliver_timeout_s
        )
        """What the worker knows of itself."""
        self._emit = events = Events(emit, state.on_event)
        self._presence = Presence(
            settings.listen_dsn, settings.schema_name, events, holding=lambda: state.outstanding > 0
        )
        events.subscribe(self._presence.on_event)
        self._starting = anyio.CancelScope()

    @property
    def stopping(self) -> bool:
        """Whether the shutdown has begun."""
        return self.state.stopping

    def stop(self) -> None:
        """Begin the shutdown, at whatever stage the worker is. Safe to call twice."""
        self.state.stopping = True
        self._starting.cancel()
        if self.state.relay is not None:
            self.state.relay.stop()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start, relay until stopped, drain. Started once the first claim can happen.

        Raises ConfigurationError or SchemaError when it cannot ever start; an unreachable database is waited for.
        """
        settings, state = self._settings, self.state
        async with AsyncExitStack() as stack:
            pool = await self._retry_while_unavailable(partial(self._open_database, stack))
            if pool is None:
                return
            state.store = store = Store(pool, settings.schema_name, keep_history=settings.history)
            state.sink = sink = await stack.enter_async_context(
                self._sink_factory(SinkContext(settings.worker_name, settings.deliver_timeout_s))
            )
            worker_id = await self._retry_while_unavailable(
                partial(store.register, settings.worker_name, __version__, {"pid": os.getpid()})
            )
            if worker_id is not None:
                wakeup = Wakeup(self._emit)
                rescue = Rescue(
                    store, wakeup, self._emit, worker_id=worker_id, stable_s=lambda: self._presence.stable_s
                )
                state.relay = relay = Relay(
                    store,
                    sink,
                    wakeup,
                    self._emit,
                    settings.relay(),
                    worker_id=worker_id,
                    watchdog=state.watchdog,
                    on_other_workers_busy=rescue.look,
                )
                await self._run_relay(relay, rescue, store, wakeup, worker_id, task_status)

    async def _retry_while_unavailable(self, step: Callable[[], Awaitable[T]]) -> T | None:
        """Take a step of the start, again and again while the database is away; return None if stopped before."""
        retry = DatabaseRetry("start", self._emit, _START)
        with anyio.CancelScope() as self._starting:
            while not self.stopping:
                try:
                    result = await step()
                except DatabaseUnavailable as error:
                    await retry.failed(error)
                else:
                    retry.succeeded()
                    return result
        return None

    async def _open_database(self, stack: AsyncExitStack) -> Pool:
        """Connect, and check the schema."""
        async with AsyncExitStack() as attempt:
            pool = await attempt.enter_async_context(
                open_pool(
                    self._settings.dsn,
                    size=_POOL_SIZE,
                    application_name=f"outbox {self._settings.worker_name}",
                    statement_timeout_s=_STATEMENT_TIMEOUT_S,
                    greeting=call("look_home", schema=self._settings.schema_name),  # before anything is claimed over it
                    durable=False,  # a claim or settlement that is lost has a message delivered again
                )
            )
            with translated_errors("connect"):
                async with pool.acquire() as connection:
                    await require_current(connection, self._settings.schema_name)
            stack.push_async_exit(attempt.pop_all())
        return pool

    async def _run_relay(
        self,
        relay: Relay,
        rescue: Rescue,
        store: Store,
        wakeup: Wakeup,
        worker_id: int,
        task_status: TaskStatus[None],
    ) -> None:
        settings, state = self._settings, self.state
        maintenance = Maintenance(
            store,
            self._emit,
            worker_id=worker_id,
            history_days=settings.history_days,
            report=state.report,
            session=lambda: self._presence.store,
        )
        control = Switches(store, self._emit, announced=lambda: wakeup.trusts(listen.NAME))
        state.selection = selection = SourceSelection(
            self._sources(store, wakeup, control), wakeup, self._emit, settings.mode, changed=maintenance.beat_soon
        )
        self._emit.subscribe(maintenance.on_event)
        control.subscribe(selection.apply)
        control.subscribe(partial(state.learn_copy, emit=self._emit))
        control.on_pauses(relay.pause)
        with suppress(OutboxError):  # it is read again at once
            await control.read()
        async with anyio.create_task_group() as duties:
            duties.start_soon(selection.run)
            duties.start_soon(control.run)
            duties.start_soon(self._presence.run, worker_id)
            await self._presence.tried.wait()  # so that others see it before it holds anything
            duties.start_soon(rescue.run)
            duties.start_soon(maintenance.run)
            self._emit(
                WorkerStarted(
                    settings.worker_name,
                    settings.schema_name,
                    place(settings.dsn),
                    state.sink_place or settings.sink,
                    selection.mode,
                    settings.http_port,
                )
            )
            task_status.started()
            await relay.run()
            duties.cancel_scope.cancel()
        state.ended = True
        with anyio.move_on_after(_FAREWELL_S):
            await maintenance.beat()

    def _sources(self, store: Store, wakeup: Wakeup, control: Switches) -> dict[str, Source]:
        """Every source that is configured, whether it will run or not."""
        settings = self._settings
        sources: dict[str, Source] = {
            listen.NAME: listen.ListenSource(
                settings.listen_dsn,
                settings.schema_name,
                store,
                wakeup,
                self._emit,
                on_control=control.look,
                reconnect=settings.relay().reconnect,
            )
        }
        configured = settings.realtime()
        if configured is not None:
            sources[realtime.NAME] = realtime.RealtimeSource(*configured, wakeup, self._emit)
        return sources


def tune_garbage_collector() -> None:
    """Tune the garbage collector of a process that is a worker and nothing else.

    What is loaded stays. Of the tens of thousands of rows that may come in a second almost nothing is left for the
    collector, which would take a fifth of the relay's time with Python's defaults.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
