"""Rings the doorbell on PostgreSQL's NOTIFY, over a connection of its own.

A lost connection is announced, replaced for ever with backoff, and followed by a sweep: what was notified in between
was notified to nobody.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus

from outbox.backoff import Backoff
from outbox.database import connect, translated_errors
from outbox.errors import DatabaseUnavailable, OutboxError
from outbox.events import Emit, SourceLost, SourceReady

if TYPE_CHECKING:
    from outbox.database import Connection
    from outbox.wakeup import Wakeup

NAME = "listen"
_PING_TIMEOUT_S = 3.0
_STEADY_S = 10.0
"""A subscription that lasted this long was sound: the next reconnect starts without delay again."""


class ListenSource:
    """LISTEN on `<schema>_wakeup`, supervised."""

    def __init__(
        self, dsn: str, schema: str, wakeup: Wakeup, emit: Emit, *, ping_interval_s: float, reconnect: Backoff
    ) -> None:
        self._dsn = dsn
        self._channel = f"{schema}_wakeup"
        self._wakeup = wakeup
        self._emit = emit
        self._ping_interval_s = ping_interval_s
        self._reconnect = reconnect
        self._started = False

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled. Started once the first try to subscribe has succeeded or failed."""
        failures = 0
        while True:
            began_s = monotonic()
            try:
                await self._subscribed(task_status)
            except OutboxError as error:
                if NAME in self._wakeup.attended_by:
                    self._wakeup.attended_by.discard(NAME)
                    self._wakeup.ring(NAME)  # the relay shall look now, and from now on more often
                failures = 1 if monotonic() - began_s > _STEADY_S else failures + 1
                delay_s = self._reconnect.delay_s(failures)
                self._emit(SourceLost(NAME, str(error), delay_s))
                self._report_start(task_status)
                await anyio.sleep(delay_s)

    async def _subscribed(self, task_status: TaskStatus[None]) -> None:
        """Subscribe and stay until the connection fails, which raises."""
        connection = await connect(self._dsn, application_name="outbox listen")
        try:
            closed = anyio.Event()
            connection.add_termination_listener(lambda _connection: closed.set())
            with translated_errors("listen"), anyio.fail_after(_PING_TIMEOUT_S):
                await connection.add_listener(self._channel, self._ring)
            self._wakeup.attended_by.add(NAME)
            self._emit(SourceReady(NAME))
            self._wakeup.ring(NAME)
            self._report_start(task_status)
            await self._keep_alive(connection, closed)
        finally:
            connection.terminate()

    async def _keep_alive(self, connection: Connection, closed: anyio.Event) -> None:
        """Ping in every silence, so that a half-open connection is noticed; raise when it is gone."""
        while not closed.is_set():
            with anyio.move_on_after(self._ping_interval_s):
                await closed.wait()
            if not closed.is_set():
                with translated_errors("ping"):
                    await connection.execute("select 1", timeout=_PING_TIMEOUT_S)
        raise DatabaseUnavailable("listen: PostgreSQL closed the connection")

    def _ring(self, *_notification: object) -> None:
        self._wakeup.ring(NAME)

    def _report_start(self, task_status: TaskStatus[None]) -> None:
        """Whoever started this source waits for its first try, whatever came of it."""
        if not self._started:
            self._started = True
            task_status.started()
