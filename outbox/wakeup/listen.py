"""Rings the doorbell on PostgreSQL's NOTIFY, over a connection of its own, and tests that notifications arrive.

Whether notifications arrive cannot be asked on this connection: behind a pooler in transaction mode LISTEN succeeds,
`pg_listening_channels()` lists the channel, even a NOTIFY sent from here comes back, and nothing else ever does. So in
every silence a probe is sent over *another* connection while this one is idle. Any notification received here is proof,
also another worker's probe: a crowd of idle workers sends hardly more probes than one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.backoff import Backoff
from outbox.model.errors import DatabaseUnavailable, OutboxError
from outbox.model.events import Emit
from outbox.postgres.connect import connect, is_pooled, place
from outbox.postgres.errors import translated_errors
from outbox.wakeup.source import SupervisedSource

if TYPE_CHECKING:
    from outbox.postgres.address import Where
    from outbox.postgres.connect import Connection
    from outbox.store.messages import Store
    from outbox.wakeup.doorbell import Wakeup

NAME = "listen"
_SILENCE_S = 3.3
"""Silence after which a probe is sent. With its time-out this bounds the time to notice a fault: under five seconds."""
_PROBE_TIMEOUT_S = 1.4
_SUBSCRIBE_TIMEOUT_S = 3.0
_DEAF_RETRY = Backoff(base_s=5.0, cap_s=60.0)
"""Pace of trying an address on which LISTEN does not work."""


class _Deaf(DatabaseUnavailable):
    """LISTEN was accepted, and no notification has ever arrived."""


class ListenSource(SupervisedSource):
    """LISTEN on `<schema>_wakeup`. `store` sends the probes; `on_control` is called when switches change."""

    name, grace_s, steady_s = NAME, 1.0, 10.0

    def __init__(
        self,
        dsn: Where,
        schema: str,
        store: Store,
        wakeup: Wakeup,
        emit: Emit,
        *,
        on_control: Callable[[], None],
        reconnect: Backoff,
    ) -> None:
        super().__init__(wakeup, emit)
        self._dsn = dsn
        self._channel = f"{schema}_wakeup"
        self._store = store
        self._on_control = on_control
        self._reconnect = reconnect
        self._connection: Connection | None = None
        self._heard = anyio.Event()
        self._heard_s = 0.0

    def _pace(self, error: OutboxError) -> Backoff:
        return _DEAF_RETRY if isinstance(error, _Deaf) else self._reconnect

    async def _session(self) -> None:
        connection = self._connection = await connect(self._dsn, application_name="outbox listen")
        try:
            closed = anyio.Event()
            connection.add_termination_listener(lambda _connection: self._close(closed))
            with translated_errors("listen"), anyio.fail_after(_SUBSCRIBE_TIMEOUT_S):
                pooled = await is_pooled(connection)
                await connection.add_listener(self._channel, self._hear)
            if not await self._prove(closed):
                raise _Deaf(self._explain(pooled=pooled))
            self._ready()
            self._on_control()
            while True:
                await self._stay_silent(closed)
                if not await self._prove(closed):
                    raise DatabaseUnavailable("listen: notifications have ceased to arrive")
        finally:
            connection.terminate()

    async def _stay_silent(self, closed: anyio.Event) -> None:
        """Return when nothing has arrived for a while; raise when the connection is gone."""
        silence_s = _SILENCE_S * random.uniform(0.95, 1.0)  # noqa: S311 - the first to probe proves it for all
        while (left_s := self._heard_s + silence_s - monotonic()) > 0:
            with anyio.move_on_after(left_s):
                await closed.wait()
            self._check_open(closed)

    async def _prove(self, closed: anyio.Event) -> bool:
        """Send a probe over another connection; return whether anything arrived on this idle one."""
        self._heard = anyio.Event()
        with anyio.move_on_after(_PROBE_TIMEOUT_S):
            await self._store.probe()
            await self._heard.wait()
        self._check_open(closed)
        return self._heard.is_set()

    def _explain(self, *, pooled: bool) -> str:
        """Why nothing arrives on a fresh subscription, and what would help."""
        if not pooled:
            return f"no notification arrives from {place(self._dsn)} within {_PROBE_TIMEOUT_S} s of a probe"
        return (
            f"LISTEN cannot work on {place(self._dsn)}: there is a pooler in transaction mode. Set "
            "OUTBOX_LISTEN_URL to an address that leads to PostgreSQL itself or to a pooler in session mode "
            "(Supabase: port 5432 instead of 6543), or OUTBOX_MODE=poll"
        )

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
