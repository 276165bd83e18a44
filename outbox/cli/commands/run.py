"""The command `outbox run`: a worker, its log, its pages and its traces, until a signal stops it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, closing, nullcontext
from functools import partial
from typing import Annotated

import typer

from outbox.cli.session import ask
from outbox.config.report import prepared, survey
from outbox.config.settings import Settings
from outbox.loops.signals import stop_on_signals
from outbox.model.events import Events
from outbox.model.sink import SinkFactory
from outbox.observability import logs
from outbox.observability.event_log import EventLog
from outbox.observability.traces import tracing
from outbox.worker.worker import Worker, tune_garbage_collector


def run(
    mode: Annotated[
        str | None, typer.Option(help="What wakes the worker besides polling: auto, listen, realtime or poll.")
    ] = None,
    sink: Annotated[str | None, typer.Option(help="Where messages go: module:attribute.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Deliveries in flight at once, at most.")] = None,
) -> None:
    """Run a worker until SIGTERM, SIGINT or SIGHUP, then drain.

    A second signal ends it at once.
    """
    found = survey(mode=mode, sink=sink, concurrency=concurrency)
    logs.configure(found.reading.settings.log_level, found.reading.settings.log_format)
    chosen = prepared(found)
    logs.warn_of(chosen.doubts)
    tune_garbage_collector()
    if not ask(partial(_run_worker, chosen.settings, chosen.sink)):
        raise typer.Exit(1)


async def _run_worker(settings: Settings, sink_factory: SinkFactory) -> bool:
    """Run a worker under signals; return whether it ended by itself, not by a second signal."""
    log = EventLog()
    events = Events(log)
    worker = Worker(settings, sink_factory, events)
    endpoints: AbstractAsyncContextManager[None] = nullcontext()
    if settings.http_port:
        from outbox.observability.pages import serving  # noqa: PLC0415 - loading its libraries takes a tenth of a second

        endpoints = serving(settings, worker.state, events)
    with closing(log):
        async with stop_on_signals(worker), tracing(events, logs.warn_of), endpoints:
            await worker.run()
            return True
    return False
