"""Shows the other workers that this one lives: by a lock that a session of its own holds in the server.

The operating system closes a dead process's sockets, the server ends the session and lets the lock go; no time-out is
involved. A frozen process keeps its socket, and its lock.

So a live worker must not lose its session without taking another one at once. Other workers look twice, a second
apart, before they take it for dead (`rescue.py`). A session that the server ended is replaced within milliseconds. A
session may also end in silence, by a failover or a firewall. So the worker tests it while it holds messages (an idle
one has nothing to lose), with each heartbeat, and when anything else has trouble with the database.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

import anyio

from outbox.loops.backoff import Backoff
from outbox.model.errors import DatabaseUnavailable, OutboxError, clean
from outbox.model.events import DatabaseLost, DatabaseRestored, Emit, Event, PresenceLost, PresenceShown, SourceLost
from outbox.postgres.connect import connect, ended_if_it_fails, is_pooled, place
from outbox.postgres.errors import translated_errors
from outbox.postgres.session import Session
from outbox.store.workers import Workers

if TYPE_CHECKING:
    from outbox.postgres.address import Where
    from outbox.postgres.connect import Connection

_RETRY = Backoff(base_s=0.05, cap_s=0.5)
"""Quick even after a long outage: a worker that comes back earlier may take this one for dead."""
_LOOK_S = 0.4
_PROOF_S = 2.0
"""How old a proof of the session may be while messages are held."""
_STATEMENT_TIMEOUT_S = 1.0
"""A session that is slow to answer is replaced by another one, which does no harm."""
_SETUP_TIMEOUT_S = 3.0


class _PoolerInTheWay(OutboxError):
    """The sessions that PostgreSQL has are the pooler's: they say nothing about processes."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"there is a pooler at {where}: set OUTBOX_LISTEN_URL to an address that leads to PostgreSQL itself"
        )


class Presence:
    """Keeps one worker present. `holding` says whether the worker holds any messages."""

    def __init__(self, dsn: Where, schema: str, emit: Emit, *, holding: Callable[[], bool]) -> None:
        self._dsn = dsn
        self._schema = schema
        self._emit = emit
        self._holding = holding
        self._news = anyio.Event()
        self._doubted = False
        self._error: str | None = None
        self._disturbed_s = float("-inf")
        self._connections: list[Connection] = []
        """The session, and the one before until there is a new one."""
        self.tried = anyio.Event()
        """Set when the first try is over, with or without success."""
        self.workers: Workers | None = None
        """Statements on the session itself, while it is trusted."""

    @property
    def stable_s(self) -> float:
        """Seconds since this worker's own way to the database last broke; others' may have broken with it."""
        return monotonic() - self._disturbed_s

    def on_event(self, event: Event) -> None:
        """Learn from the event stream of trouble with the database: the session may be gone as well."""
        if isinstance(event, DatabaseLost | DatabaseRestored):
            self._disturbed_s = monotonic()
        elif not isinstance(event, SourceLost):
            return
        self._doubted = True
        self._news.set()

    async def run(self, worker_id: int) -> None:
        """Be present until cancelled, or until it is clear that a pooler is in the way."""
        failures = 0
        try:
            while True:
                try:
                    await self._session(worker_id)
                except _PoolerInTheWay as error:
                    self._emit(PresenceLost(clean(str(error))))
                    self.tried.set()
                    return
                except OutboxError as error:
                    reason = error
                except Exception as error:  # noqa: BLE001 - no fault here may stop the relay
                    reason = OutboxError(f"presence: {type(error).__name__}: {error}")
                failures = failures + 1 if self.workers is None else 0
                self._lost(reason)
                self.tried.set()
                if failures:
                    await anyio.sleep(_RETRY.delay_s(failures))
        finally:
            self._keep(None)

    async def _session(self, worker_id: int) -> NoReturn:
        """Connect, take the lock, and stay. Raises OutboxError with the reason when that ends."""
        self._news, self._doubted = anyio.Event(), False
        connection = await connect(self._dsn, application_name="outbox presence")
        workers = Workers(Session(connection, _STATEMENT_TIMEOUT_S), self._schema)
        with ended_if_it_fails(connection):
            connection.add_termination_listener(lambda _connection: self._news.set())
            await self._require_direct(connection)
            presence = await workers.assert_presence(worker_id)
        self._keep(connection)
        self.workers, self._error = workers, None
        self._emit(PresenceShown(worker_id))
        self.tried.set()
        await self._stay(connection, workers, (worker_id, presence))

    async def _require_direct(self, connection: Connection) -> None:
        with translated_errors("presence"), anyio.fail_after(_SETUP_TIMEOUT_S):
            pooled = await is_pooled(connection)
        if pooled:
            raise _PoolerInTheWay(place(self._dsn))

    async def _stay(self, connection: Connection, workers: Workers, who: tuple[int, int]) -> NoReturn:
        """Raise OutboxError once the session is gone, or is not trusted any more."""
        proved_s = monotonic()
        while True:
            with anyio.move_on_after(_LOOK_S):
                await self._news.wait()
            if connection.is_closed():
                raise DatabaseUnavailable("presence: the session has ended")
            if self._doubted:
                raise DatabaseUnavailable("presence: there was trouble with the database")
            if self._holding() and monotonic() - proved_s > _PROOF_S:
                if not await workers.has_presence(*who):
                    raise DatabaseUnavailable("presence: another worker took this one for dead")
                proved_s = monotonic()

    def _keep(self, connection: Connection | None) -> None:
        """End every session but this one. The one before is not ended before there is another: it may be sound."""
        for old in self._connections:
            old.terminate()
        self._connections = [connection] if connection else []

    def _lost(self, error: OutboxError) -> None:
        """Report each new reason once, unless another session replaces this one at once."""
        was_shown, self.workers = self.workers is not None, None
        if not self._doubted:
            self._disturbed_s = monotonic()
        if not was_shown and self._error != str(error):
            self._error = str(error)
            self._emit(PresenceLost(clean(str(error))))
