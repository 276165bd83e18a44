"""What a workflow worker reports over HTTP: `/livez` and `/readyz`, in the relay's form. `outbox health` asks for both.

The SDK serves its metrics itself, at an address of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.message import Message as Headers
from typing import TYPE_CHECKING

from temporalio.service import RPCError

from outbox.loops.watchdog import Watchdog
from outbox.model.errors import OutboxError
from outbox.observability.cached_answer import CachedAnswer
from outbox.observability.http_server import Page
from outbox.observability.pages import BELIEVED_S, LIVE, NO_ANSWER, PROBE_WAIT_S, READY, judged, served
from outbox.observability.state import OK, Parts, well

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox_workflows.worker.runner import WorkflowWorker

_ASKED_EVERY_S = 2.0
_ANSWERS_WITHIN = timedelta(seconds=3)


@asynccontextmanager
async def serving(settings: Settings, worker: WorkflowWorker) -> AsyncIterator[None]:
    """Serve for the block. Raises ConfigurationError when the port is not free."""
    health = HealthPages(worker)
    async with served(settings, {LIVE: health.live, READY: health.ready}, health.watchdog, [health.asked]):
        yield


class HealthPages:
    """The pages of one workflow worker. `live` and `ready` may be called in any thread."""

    def __init__(self, worker: WorkflowWorker) -> None:
        self._worker = worker
        self.watchdog = Watchdog()
        self.asked = CachedAnswer(self._ask, every_s=_ASKED_EVERY_S)

    def live(self, _headers: Headers) -> Page:
        """Whether the event loop turns."""
        late_s = self.watchdog.overdue_s()
        fault = ", ".join(f"{who} overdue by {s:.1f} s" for who, s in late_s.items())
        return judged({"live": not fault}, {"loops": fault or OK})

    def ready(self, _headers: Headers) -> Page:
        """Whether workflows would be carried out now, and if not, why."""
        parts: Parts = {"worker": OK if self._worker.state == "running" else self._worker.state}
        answer = self.asked.look(PROBE_WAIT_S)
        known = answer is not None and answer.age_s <= BELIEVED_S
        parts |= answer.value if known and answer is not None else dict.fromkeys(("database", "temporal"), NO_ANSWER)
        ready = all(well(reason) for reason in parts.values())
        return judged({"ready": ready, "state": self._worker.state}, parts)

    async def _ask(self) -> Parts:
        return {"database": await self._database(), "temporal": await self._temporal()}

    async def _database(self) -> str:
        if self._worker.application is None:
            return "not connected yet"
        try:
            newer = await self._worker.application.check()
        except OutboxError as error:
            return str(error)
        return f"{OK}: {newer}" if newer else OK

    async def _temporal(self) -> str:
        if self._worker.client is None:
            return "not connected yet"
        try:
            well = await self._worker.client.service_client.check_health(retry=False, timeout=_ANSWERS_WITHIN)
        except (RPCError, RuntimeError) as error:
            return f"does not answer: {error}"
        return OK if well else "is not well, by its own word"
