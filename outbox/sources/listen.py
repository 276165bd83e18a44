"""Rings the doorbell on PostgreSQL's NOTIFY, over a connection of its own, and never believes that it can hear.

Whether notifications arrive cannot be asked on this connection: behind a pooler in transaction mode LISTEN succeeds,
`pg_listening_channels()` lists the channel, even a NOTIFY sent from here comes back, and nothing else ever does. So in
every silence a probe is sent over *another* connection while this one is idle. Any notification heard here is proof,
also another worker's probe: a crowd of idle workers sends hardly more probes than one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.backoff import Backoff
from outbox.database import connect, is_pooled, place, translated_errors
from outbox.errors import DatabaseUnavailable, OutboxError
from outbox.events import Emit, SourceLost, SourceReady

if TYPE_CHECKING:
    from outbox.database import Connection
    from outbox.store import Store
    from outbox.wakeup import Wakeup

NAME = "listen"
GRACE_S = 1.0
_SILENCE_S = 3.3
"""Silence after which a probe is sent. With its time-out this bounds the time to notice a fault: under five seconds."""
_PROBE_TIMEOUT_S = 1.4
_SUBSCRIBE_TIMEOUT_S = 3.0
_STEADY_S = 10.0
"""A subscription that lasted this long was sound: the next reconnect starts without delay again."""
_DEAF_RETRY = Backoff(base_s=5.0, cap_s=60.0)
"""Pace of trying an address on which LISTEN does not work."""


class _Deaf(DatabaseUnavailable):
    """LISTEN was accepted, and no notification arrives."""


class ListenSource:
    """LISTEN on `<schema>_wakeup`, supervised. `store` sends the probes; `on_control` is told of switches."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        store: Store,
        wakeup: Wakeup,
        emit: Emit,
        *,
        on_control: Callable[[], None],
        reconnect: Backoff,
    ) -> None:
        self._dsn = dsn
        self._channel = f"{schema}_wakeup"
        self._store = store
        self._wakeup = wakeup
        self._emit = emit
        self._on_control = on_control
        self._reconnect = reconnect
        self._connection: Connection | None = None
        self._heard = anyio.Event()
        self._heard_s = 0.0
        self.error: str | None = None
        """Why it cannot hear, while it cannot."""

    async def run(self) -> None:
        """Listen until cancelled."""
        failures = 0
        try:
            while True:
                began_s = monotonic()
                try:
                    await self._subscribed()
                except OutboxError as error:
                    failures = 1 if monotonic() - began_s > _STEADY_S else failures + 1
                    pace = _DEAF_RETRY if isinstance(error, _Deaf) else self._reconnect
                    delay_s = pace.delay_s(failures)
                    self._lost(str(error), delay_s)
                    await anyio.sleep(delay_s)
        finally:
            self._wakeup.unsubscribed(NAME)

    def _lost(self, error: str, delay_s: float) -> None:
        """Tell once of each new reason, and have the relay look by itself from now on."""
        self._wakeup.unsubscribed(NAME)
        if self.error != error:
            self.error = error
            self._emit(SourceLost(NAME, error, delay_s))

    async def _subscribed(self) -> None:
        """Subscribe and stay until the subscription fails, which raises."""
        connection = self._connection = await connect(self._dsn, application_name="outbox listen")
        try:
            closed = anyio.Event()
            connection.add_termination_listener(lambda _connection: self._close(closed))
            with translated_errors("listen"), anyio.fail_after(_SUBSCRIBE_TIMEOUT_S):
                pooled = await is_pooled(connection)
                await connection.add_listener(self._channel, self._hear)
            await self._prove(pooled=pooled, closed=closed)
            self.error = None
            self._wakeup.subscribed(NAME, grace_s=GRACE_S)
            self._on_control()
            self._emit(SourceReady(NAME))
            while True:
                await self._stay_silent(closed)
                await self._prove(pooled=pooled, closed=closed)
        finally:
            connection.terminate()

    async def _stay_silent(self, closed: anyio.Event) -> None:
        """Return when nothing has been heard for a while; raise when the connection is gone."""
        silence_s = _SILENCE_S * random.uniform(0.95, 1.0)  # noqa: S311 - the first to probe proves it for everybody
        while (left_s := self._heard_s + silence_s - monotonic()) > 0:
            with anyio.move_on_after(left_s):
                await closed.wait()
            self._check_open(closed)

    async def _prove(self, *, pooled: bool, closed: anyio.Event) -> None:
        """Send a probe over another connection, and raise unless something is heard on this idle one."""
        self._heard = anyio.Event()
        with anyio.move_on_after(_PROBE_TIMEOUT_S) as scope:
            await self._store.probe()
            await self._heard.wait()
        self._check_open(closed)
        if scope.cancelled_caught:
            host = place(self._dsn)
            if pooled and self._heard_s == 0.0:
                raise _Deaf(
                    f"LISTEN cannot work on {host}: a pooler in transaction mode stands there. Set OUTBOX_LISTEN_URL "
                    "to an address that leads to PostgreSQL itself or to a pooler in session mode (Supabase: port 5432 "
                    "instead of 6543), or OUTBOX_MODE=poll"
                )
            raise _Deaf(f"no notification arrives from {host} within {_PROBE_TIMEOUT_S} s of a probe")

    @staticmethod
    def _check_open(closed: anyio.Event) -> None:
        if closed.is_set():
            raise DatabaseUnavailable("listen: PostgreSQL closed the connection")

    def _close(self, closed: anyio.Event) -> None:
        closed.set()
        self._heard.set()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Take any notification as proof, and pass it on as what it says."""
        self._heard_s = monotonic()
        self._heard.set()
        if payload == "control":
            self._on_control()
        elif payload != "probe":
            self._wakeup.ring(NAME)
