"""The connection that deliveries use, and its replacement when it has gone silent.

A connection can be half-open: packets vanish, no error comes, and new connections work. gRPC's keep-alive finds that
on an idle connection. On a busy one a call's own time-out is sooner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from temporalio.service import RPCError, RPCStatusCode

from outbox.errors import ConfigurationError

if TYPE_CHECKING:
    from temporalio.service import ServiceClient

    from workflows.frontend import Frontend

Reach = Callable[[], Awaitable["Frontend"]]
"""Makes a lazy connection: it waits for no server, and reads the settings again."""

_TIMED_OUT = (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED)
"""CANCELLED is how the SDK reports its own time-out."""


def timed_out(error: RPCError) -> bool:
    """Whether the call ended because no answer came in time."""
    return error.status in _TIMED_OUT


class Link:
    """One connection at a time. Calls that began on an old one finish there."""

    def __init__(self, service: ServiceClient, reach: Reach) -> None:
        self.service = service
        self._reach = reach
        self._heard_s = monotonic()

    def heard(self) -> None:
        """Note that the server has just answered, whatever it said."""
        self._heard_s = monotonic()

    async def missed(self, began_s: float) -> None:
        """A call that began at the monotonic time `began_s` timed out: connect again if nothing was heard since then.

        Of many calls that time out together only the first replaces the connection.
        """
        if began_s <= self._heard_s:
            return
        self.heard()
        with suppress(ConfigurationError):  # settings that cannot be used now do not end what they began
            self.service = (await self._reach()).service
