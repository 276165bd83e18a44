"""The state of a worker: one answer for its heartbeat, its probes, its status page and its metrics.

Some of it is known at every moment, from the event stream and the loops' promises, and may be read from any thread. The
rest is found out by asking the database and the sink, on the event loop; the caller bounds how often.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import anyio

from outbox.loops.watchdog import Watchdog
from outbox.model.errors import DatabaseRefused, OutboxError, SchemaError, clean
from outbox.model.events import (
    CopyAdopted,
    CopyFound,
    DatabaseLost,
    DatabaseRestored,
    Emit,
    Event,
    Held,
    PresenceLost,
    PresenceShown,
    Resumed,
    WorkerStarted,
)
from outbox.model.sink import Unavailable
from outbox.store.migrations import require_register

if TYPE_CHECKING:
    from outbox.model.sink import Sink
    from outbox.relay import Relay
    from outbox.store.overview import Overview
    from outbox.wakeup.selection import SourceSelection

Phase = Literal["starting", "running", "holding", "draining", "stopped"]
OK = "ok"
Parts = dict[str, str]
"""By part of the worker: OK, perhaps with a remark, or why it does not work."""

_NO_SCHEMA = ("3F000", "42P01")
"""PostgreSQL's codes for a schema and a table that are not there."""


def well(reason: str) -> bool:
    """Whether what is said of a part means that it works."""
    return reason == OK or reason.startswith(f"{OK}: ")


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker that know something of its state."""

    sink: Sink
    relay: Relay
    selection: SourceSelection


class WorkerState:
    """One worker's knowledge of itself."""

    def __init__(self, *, worker: str, schema: str, sink_timeout_s: float) -> None:
        """`sink_timeout_s` bounds one question to the sink."""
        self.worker = worker
        self.schema = schema
        self.watchdog = Watchdog()
        self.overview: Overview | None = None
        """Statements on the outbox, once it is connected. A sink may take long to open."""
        self.parts: WorkerParts | None = None
        """What the worker is made of, once it is connected and registered."""
        self.started = False
        """Whether the first claim can happen."""
        self.stopping = False
        self.ended = False
        self.present = False
        """Whether others see that this worker lives."""
        self.held_since_s: float | None = None
        self.copy: str | None = None
        """Why nothing is claimed: this database is a copy of the one in which the outbox lived."""
        self._sink_timeout_s = sink_timeout_s
        self._long_question = anyio.Lock()
        """One at a time of those that may take seconds: the relay needs the pool's connections more."""
        self._lost: dict[str, str] = {}
        """What the database cannot be reached for, and why."""

    def on_event(self, event: Event) -> None:
        """Learn from the event stream."""
        match event:
            case DatabaseLost(doing=doing, error=error):
                self._lost[doing] = error
            case DatabaseRestored(doing):
                self._lost.pop(doing, None)
            case Held(held_s=0):
                self.held_since_s = monotonic()
            case Resumed():
                self.held_since_s = None
            case WorkerStarted():
                self.started = True
            case PresenceShown() | PresenceLost():
                self.present = isinstance(event, PresenceShown)

    def learn_copy(self, switches: dict[str, Any], *, emit: Emit) -> None:
        """Learn from the control table whether the database is a copy."""
        found = switches.get("copy")
        if found != self.copy:
            emit(CopyFound(found) if found else CopyAdopted(self.copy or ""))
            self.copy = found

    @property
    def phase(self) -> Phase:
        """The one word for it."""
        if self.ended:
            return "stopped"
        if self.stopping:
            return "draining"
        if self.parts is None or not self.started:
            return "starting"
        return "holding" if self.parts.relay.hold.outcome else "running"

    @property
    def sink_place(self) -> str:
        """Where the sink delivers to, if it says so."""
        return str(getattr(self.parts.sink, "place", "")) if self.parts else ""

    @property
    def in_flight(self) -> int:
        """Messages that the sink is being asked about."""
        return self.parts.relay.in_flight if self.parts else 0

    @property
    def outstanding(self) -> int:
        """Messages that this worker has claimed and not settled."""
        return self.parts.relay.outstanding if self.parts else 0

    @property
    def database_lost(self) -> str | None:
        """Why some loop cannot reach the database; None while all can."""
        return next(iter(self._lost.copy().values()), None)

    def overdue(self) -> str | None:
        """Which loops have not reported in time; None while all keep their promises."""
        late_s = self.watchdog.overdue_s()
        return ", ".join(f"{who} overdue by {s:.1f} s" for who, s in late_s.items()) if late_s else None

    def known(self) -> Parts:
        """What speaks against readiness without a question asked, by part; OK where nothing does."""
        hold = self.parts.relay.hold.outcome if self.parts else None
        return {
            "relay": self.overdue() or (OK if self.phase == "running" else self._waiting()),
            "database": self.database_lost or (f"paused: {self.copy}: see outbox adopt" if self.copy else OK),
            "sink": f"{hold.kind}: {hold.detail}" if hold else OK,
        }

    def _waiting(self) -> str:
        if self.phase == "holding" and self.held_since_s is not None:
            return f"holding for {monotonic() - self.held_since_s:.0f} s"
        return self.phase

    def report(self) -> tuple[Phase, dict[str, Any]]:
        """The worker's state for its row in the register. On the event loop only."""
        if self.ended or self.parts is None:
            return self.phase, {"sources": {}, "outstanding": self.outstanding}
        relay = self.parts.relay
        hold = relay.hold.outcome
        return self.phase, {
            **self.parts.selection.report(),
            "in_flight": relay.in_flight,
            "outstanding": relay.outstanding,
            "rate_limit": relay.rate_limit,
            "held_by": clean(f"{hold.kind}: {hold.detail}") if hold else None,
            "sink": self.sink_place,
        }

    async def ask_database(self) -> Parts:
        """Whether the database answers and takes writes, and whether its schema serves this version."""
        if self.overview is None:
            return {"database": self.database_lost or "not connected yet", "schema": "not known without the database"}
        try:
            newer = require_register(await self.overview.applied_migrations(), self.schema)
        except SchemaError as error:
            return {"database": OK, "schema": str(error)}
        except OutboxError as error:
            if isinstance(error, DatabaseRefused) and error.sqlstate in _NO_SCHEMA:
                return {
                    "database": OK,
                    "schema": f"the database has no schema {self.schema!r}: run `outbox migrate`",
                }
            return {"database": str(error), "schema": "not known without the database"}
        return {"database": OK, "schema": f"{OK}: {newer}" if newer else OK}

    async def ask_sink(self) -> Parts:
        """Whether the sink takes deliveries, by its own probe."""
        if self.parts is None:
            return {"sink": "not opened yet"}
        try:
            with anyio.fail_after(self._sink_timeout_s):
                outcome = await self.parts.sink.probe()
        except TimeoutError:
            return {"sink": f"no answer within {self._sink_timeout_s:g} s"}
        except Exception as error:  # noqa: BLE001 - a fault of the sink is an answer too
            return {"sink": f"its probe raised {type(error).__name__}: {error}"}
        return {"sink": f"{outcome.kind}: {outcome.detail}" if isinstance(outcome, Unavailable) else OK}

    async def ask_facts(self) -> dict[str, Any] | None:
        """The result of `status/facts.sql` for the whole outbox; None while there is none."""
        if self.overview is None:
            return None
        try:
            async with self._long_question:
                return await self.overview.facts()
        except OutboxError:
            return None

    async def ask_status(self) -> dict[str, Any]:
        """The result of `outbox status`, or why there is none, and this worker's own state."""
        state, detail = self.report()
        held_s = None if self.held_since_s is None else round(monotonic() - self.held_since_s, 1)
        own = {"name": self.worker, "state": state, "presence_shown": self.present, "held_s": held_s, **detail}
        if self.overview is None:
            return {"this_worker": own, "error": "not connected yet"}
        try:
            async with self._long_question:
                whole = await self.overview.status()
        except OutboxError as error:
            whole = {"error": str(error)}
        return {"this_worker": own, **whole}
