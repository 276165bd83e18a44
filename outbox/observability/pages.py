"""The pages of a worker over HTTP: `/livez`, `/readyz`, `/status` and `/metrics`.

Each page is made in a thread of the server, in less time than a probe's time-out, from what is known. What only the
event loop can find out comes through `CachedAnswer`: it asks at most once per interval, and only on request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.message import Message as Headers
from http import HTTPStatus
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from outbox.model.errors import clean
from outbox.model.json_output import json_output
from outbox.observability.cached_answer import CachedAnswer
from outbox.observability.counters import EventCounters
from outbox.observability.http_server import HttpServer, Page, Pages, listen
from outbox.observability.metrics import Metrics
from outbox.observability.state import OK, well

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.loops.watchdog import Watchdog
    from outbox.model.events import Events
    from outbox.observability.state import Parts, WorkerState

LIVE, READY, STATUS, METRICS = "/livez", "/readyz", "/status", "/metrics"
PROBE_WAIT_S = 0.7
"""How long a probe waits for news. Kubernetes gives it a second."""
_PROBE_EVERY_S, _PROBE_AGAIN_S = 2.0, 0.05
"""How often is asked while all is well, and while it is not: a worker that starts, or recovers, is ready soon."""
BELIEVED_S = 15.0
"""How old an answer may be that a probe still goes by while the next one is on its way."""
_FACTS_EVERY_S = 10.0
_FACTS_WAIT_S = 3.0
_STATUS_EVERY_S = 2.0
_STATUS_WAIT_S = 8.0
_LOOK_AGAIN_S = 0.05
NO_ANSWER = "no answer yet"


@asynccontextmanager
async def serving(settings: Settings, state: WorkerState, events: Events) -> AsyncIterator[None]:
    """Serve a worker's pages for the block. Raises ConfigurationError when the port cannot be had."""
    counts = EventCounters()
    events.subscribe(counts)
    endpoints = Endpoints(state, counts, slots=settings.concurrency)
    async with served(settings, endpoints.pages(), state.watchdog, endpoints.readings):
        yield


@asynccontextmanager
async def served(
    settings: Settings, pages: Pages, watchdog: Watchdog, readings: Sequence[CachedAnswer[Any]]
) -> AsyncIterator[None]:
    """Serve pages for the block, run the watchdog's beat on the event loop, and answer there what the pages ask.

    Raises ConfigurationError when the port cannot be had.
    """
    listener = listen(settings.http_host, settings.http_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watchdog.beat)
        for reading in readings:
            tasks.start_soon(reading.answer)
        server = HttpServer(listener, pages, probes=(LIVE, READY))
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(server.close)
            tasks.cancel_scope.cancel()


class Endpoints:
    """The pages of one worker. Every method may be called in any thread."""

    def __init__(self, state: WorkerState, counts: EventCounters, *, slots: int) -> None:
        self._state = state
        self._database, self._sink = (
            CachedAnswer(ask, every_s=_PROBE_EVERY_S, again_s=_PROBE_AGAIN_S, well=_all_well)
            for ask in (state.ask_database, state.ask_sink)
        )
        self._status = CachedAnswer(state.ask_status, every_s=_STATUS_EVERY_S)
        facts = CachedAnswer(state.ask_facts, every_s=_FACTS_EVERY_S)
        self.readings: tuple[CachedAnswer[Any], ...] = (self._database, self._sink, self._status, facts)
        """The questions that the event loop has to answer."""
        self._registry = CollectorRegistry()
        self._registry.register(Metrics(counts, state, lambda: facts.look(_FACTS_WAIT_S), slots=slots))
        ProcessCollector(registry=self._registry)

    def pages(self) -> Pages:
        """By path."""
        return {LIVE: self.live, READY: self.ready, STATUS: self.status, METRICS: self.metrics}

    def live(self, _headers: Headers) -> Page:
        """Whether the event loop turns and every loop on it keeps its promises.

        A process that was frozen, or waited for a processor, gets a moment to catch up first.
        """
        end_s = monotonic() + PROBE_WAIT_S
        while (overdue := self._state.overdue()) is not None and monotonic() < end_s:
            sleep(_LOOK_AGAIN_S)
        return judged({"live": overdue is None}, {"loops": overdue or OK})

    def ready(self, _headers: Headers) -> Page:
        """Whether messages would be delivered now, and if not, why: the latest that was found out, or what is known."""
        end_s = monotonic() + PROBE_WAIT_S
        parts: Parts = {"relay": OK, "database": NO_ANSWER, "schema": NO_ANSWER, "sink": NO_ANSWER}
        for reading in (self._database, self._sink):
            answer = reading.look(max(0.0, end_s - monotonic()))
            if answer is not None and answer.age_s <= BELIEVED_S:
                parts |= answer.value
        for part, reason in self._state.known().items():
            if reason != OK and parts[part] in (OK, NO_ANSWER):
                parts[part] = reason
        return judged({"ready": _all_well(parts), "state": self._state.phase}, parts)

    def status(self, _headers: Headers) -> Page:
        """The result of `outbox status --json`, and this worker's own state. Says how old it is."""
        answer = self._status.look(_STATUS_WAIT_S)
        if answer is None:
            parts = {"this_worker": {"state": self._state.phase}, "error": "no answer yet"}
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, parts)
        status = HTTPStatus.OK if answer.age_s <= BELIEVED_S else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, {"age_s": round(answer.age_s, 1), **answer.value})

    def metrics(self, headers: Headers) -> Page:
        """For Prometheus, in the form that it asks for."""
        try:
            encode, content_type = choose_encoder(headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 - the library raises many things for a header that it cannot read
            encode, content_type = choose_encoder("")
        return Page(HTTPStatus.OK, content_type, encode(self._registry))


def judged(verdict: Mapping[str, object], parts: Parts) -> Page:
    """200 if all parts are well, else 503; the reasons are in both."""
    works = _all_well(parts)
    said = {part: clean(reason) for part, reason in parts.items()}  # servers say what is no Unicode
    return _json(HTTPStatus.OK if works else HTTPStatus.SERVICE_UNAVAILABLE, {**verdict, "parts": said})


def _all_well(parts: Parts) -> bool:
    return all(well(reason) for reason in parts.values())


def _json(status: HTTPStatus, content: Mapping[str, object]) -> Page:
    return Page(status, "application/json", json_output(content))
