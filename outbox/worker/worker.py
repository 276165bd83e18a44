"""The worker: one process's pool, sink, sources, relay and maintenance, started together and drained in order."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus

from outbox import __version__
from outbox.loops.backoff import Backoff
from outbox.loops.retry import DatabaseRetry
from outbox.model.errors import DatabaseUnavailable, OutboxError
from outbox.model.events import Emit, Events, WorkerStarted
from outbox.model.sink import SinkContext, SinkFactory
from outbox.observability.state import WorkerParts, WorkerState
from outbox.postgres.connect import place
from outbox.postgres.errors import translated_errors
from outbox.postgres.pool import open_pool
from outbox.relay import Relay, RelayContext
from outbox.store.messages import Store
from outbox.store.migrations import require_current
from outbox.store.overview import Overview
from outbox.store.retention import Retention
from outbox.store.rules import Rules
from outbox.store.sql import call
from outbox.store.workers import Workers
from outbox.wakeup import listen, realtime
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.selection import Source, SourceSelection
from outbox.worker.heartbeat import Heartbeat
from outbox.worker.maintenance import Maintenance
from outbox.worker.presence import Presence
from outbox.worker.rescue import Rescue
from outbox.worker.switches import Switches

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.model.sink import Sink
    from outbox.postgres.pool import Pool

_POOL_SIZE = 4
"""Claim, settle, maintenance, and one to spare while a broken connection is replaced."""
_STATEMENT_TIMEOUT_S = 10.0
_FAREWELL_S = 2.0
_START = Backoff(0.1, 1.0)
"""How a starting worker looks for its database: often, because it has nothing else to do."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Duties:
    """What a worker does at the same time."""

    relay: Relay
    rescue: Rescue
    heartbeat: Heartbeat
    switches: Switches
    selection: SourceSelection
    maintenance: Maintenance


class Worker:
    """One relay process. `stop` begins the drain; `run` returns when it is over."""

    def __init__(self, settings: Settings, sink_factory: SinkFactory, emit: Emit) -> None:
        self._settings = settings
        self._sink_factory = sink_factory
        self.state = state = WorkerState(
            worker=settings.worker_name, schema=settings.schema_name, sink_timeout_s=settings.deliver_timeout_s
        )
        """The state of the worker."""
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
        """Begin the shutdown, at any stage. Safe to call twice."""
        self.state.stopping = True
        self._starting.cancel()
        if self.state.parts is not None:
            self.state.parts.relay.stop()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start, relay until stopped, drain. Started once the first claim can happen.

        Raises ConfigurationError or SchemaError when it can never start. It waits for an unreachable database.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            pool = await self._retry_while_unavailable(partial(self._open_database, stack))
            if pool is None:
                return
            self.state.overview = Overview(pool, settings.schema_name)
            sink = await stack.enter_async_context(
                self._sink_factory(SinkContext(settings.worker_name, settings.deliver_timeout_s))
            )
            workers = Workers(pool, settings.schema_name)
            worker_id = await self._retry_while_unavailable(
                partial(workers.register, settings.worker_name, __version__, {"pid": os.getpid()})
            )
            if worker_id is not None:
                duties = self._assemble(pool, workers, sink, worker_id)
                if self.stopping:  # asked as the last step ended: too late to cancel it
                    duties.relay.stop()
                await self._run(duties, worker_id, task_status)

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

    def _assemble(self, pool: Pool, workers: Workers, sink: Sink, worker_id: int) -> _Duties:
        """Put the worker together. Nothing runs yet."""
        settings, emit, schema = self._settings, self._emit, self._settings.schema_name
        store, wakeup = Store(pool, schema, keep_history=settings.history), Wakeup(emit)
        rescue = Rescue(workers, wakeup, emit, worker_id=worker_id, stable_s=lambda: self._presence.stable_s)
        relay = Relay(RelayContext(store, sink, wakeup, emit, settings, self.state.watchdog, worker_id, rescue.look))
        heartbeat = Heartbeat(
            workers,
            emit,
            worker_id=worker_id,
            report=self.state.report,
            own_session=lambda: self._presence.workers,
        )
        switches = Switches(Rules(pool, schema), emit, announced=lambda: wakeup.trusts(listen.NAME))
        sources = self._sources(store, wakeup, switches)
        selection = SourceSelection(sources, wakeup, emit, settings.mode, changed=heartbeat.beat_soon)
        maintenance = Maintenance(store, Retention(pool, schema), emit, history_days=settings.history_days)
        self.state.parts = WorkerParts(sink, relay, selection)
        emit.subscribe(heartbeat.on_event)
        switches.subscribe(selection.apply)
        switches.subscribe(partial(self.state.learn_copy, emit=emit))
        switches.on_pauses(relay.pause)
        return _Duties(relay, rescue, heartbeat, switches, selection, maintenance)

    async def _run(self, duties: _Duties, worker_id: int, task_status: TaskStatus[None]) -> None:
        """Run all duties until the relay has drained; then report the end."""
        with suppress(OutboxError):  # it is read again at once
            await duties.switches.read()
        try:
            async with anyio.create_task_group() as tasks:
                await self._start(duties, worker_id, tasks)
                task_status.started()
                await duties.relay.run()
                tasks.cancel_scope.cancel()
        finally:  # also if it is cancelled: a row that says "running" would have to be waited for
            self.state.ended = True
            with anyio.move_on_after(_FAREWELL_S, shield=True):
                await duties.heartbeat.beat()

    async def _start(self, duties: _Duties, worker_id: int, tasks: TaskGroup) -> None:
        """Start all duties but the relay."""
        settings = self._settings
        tasks.start_soon(duties.selection.run)
        tasks.start_soon(duties.switches.run)
        tasks.start_soon(self._presence.run, worker_id)
        await self._presence.tried.wait()  # so that others see it before it holds anything
        tasks.start_soon(duties.rescue.run)
        tasks.start_soon(duties.heartbeat.run)
        tasks.start_soon(duties.maintenance.run)
        self._emit(
            WorkerStarted(
                settings.worker_name,
                settings.schema_name,
                place(settings.dsn),
                self.state.sink_place or settings.sink,
                duties.selection.mode,
                settings.http_port,
            )
        )

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
                reconnect=settings.reconnect,
            )
        }
        configured = settings.realtime()
        if configured is not None:
            sources[realtime.NAME] = realtime.RealtimeSource(*configured, wakeup, self._emit)
        return sources


def tune_garbage_collector() -> None:
    """Tune the garbage collector of a process that is a worker and nothing else.

    What is loaded stays. Tens of thousands of rows may come in a second, and almost nothing of them is left for the
    collector. With Python's defaults it would take a fifth of the relay's time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
