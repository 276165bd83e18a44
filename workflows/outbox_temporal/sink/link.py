"""The connection that deliveries use, and its replacement when it has gone silent.

A connection can be half-open: packets vanish, no error comes, and new connections work. gRPC's keep-alive finds that
on an idle connection. On a busy one a call's own time-out is sooner. And a login can be rotated: certificates and keys
are files that change while the worker runs, and a connection keeps those with which it was made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from temporalio.service import RPCError, RPCStatusCode

from outbox.model.errors import ConfigurationError
from outbox_temporal.sink.frontend import given

if TYPE_CHECKING:
    from temporalio.service import ServiceClient

    from outbox_temporal.sink.frontend import Frontend

Reach = Callable[[], Awaitable["Frontend"]]
"""Makes a lazy connection: it waits for no server, and reads the settings again."""

_LOOK_EVERY_S = 5.0
_TIMED_OUT = (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED)
"""CANCELLED is how the SDK reports its own time-out."""


def timed_out(error: RPCError) -> bool:
    """Whether the call ended because no answer came in time."""
    return error.status in _TIMED_OUT


class Link:
    """One connection at a time. Calls that began on an old one finish there."""

    def __init__(self, service: ServiceClient, reach: Reach, read: Callable[[], object] = given) -> None:
        """`read` gives the settings as they are now: certificates, keys and all."""
        self.service = service
        self._reach = reach
        self._read = read
        self._heard_s = monotonic()
        self._looked_s = monotonic()
        self._given: object = None
        with suppress(ConfigurationError):
            self._given = read()

    async def refresh(self, *, at_once: bool = False) -> None:
        """Connect again if certificate, key or settings have changed since the connection was made.

        Files are read every few seconds, and `at_once` where the login may have been refused. A file that is half
        written changes nothing: it is read again.
        """
        if not at_once and monotonic() < self._looked_s + _LOOK_EVERY_S:
            return
        self._looked_s = monotonic()
        with suppress(ConfigurationError):
            found = self._read()
            if found != self._given:
                self.service = (await self._reach()).service
                self._given = found

    def answered(self) -> None:
        """Note that the server has just answered. The answer itself does not matter."""
        self._heard_s = monotonic()

    async def missed(self, began_s: float) -> None:
        """A call that began at the monotonic time `began_s` timed out: connect again if no answer came since then.

        Of many calls that time out together only the first replaces the connection.
        """
        if began_s <= self._heard_s:
            return
        self.answered()
        with suppress(ConfigurationError):  # settings that cannot be used now do not end what they began
            self.service = (await self._reach()).service
