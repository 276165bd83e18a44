"""How much one claim takes: by count as a rule, and by bytes where messages are large.

A worker holds large messages up to a number of bytes, so its memory is bounded. A claim
that brings large ones is followed by one for twice as many as fit, because what a claim locks and does not take is
hidden from other workers while its answer travels. After a failure, which may be a time-out on a slow link, claims
take half.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from outbox.model.message import CLAIM_BYTES

if TYPE_CHECKING:
    from outbox.model.message import ClaimedBatch
    from outbox.relay.buffer import Buffer

_LARGE = attrgetter("large_bytes")
_LEAST_BYTES = 65_536
"""A claim takes its first message of any size. So this bounds only how many small ones come with it."""


class ClaimSize:
    """Remembers what the last claims brought. Everything is synchronous."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._bytes = CLAIM_BYTES
        self._average = 0
        """Bytes of a message in the last batch, if it had large ones; else 0."""

    def limit(self) -> int:
        """How many messages to claim now; 0 while there is no room."""
        room = self._buffer.room()
        return min(room, 1 + 2 * self.max_bytes() // self._average) if self._average else room

    def max_bytes(self) -> int:
        """After how many bytes a claim takes no more; at least 1."""
        return max(1, min(self._bytes, self._buffer.room_bytes()))

    def claimed(self, batch: ClaimedBatch) -> None:
        """Learn from a claim's answer."""
        large_bytes = sum(filter(None, map(_LARGE, batch.messages)))
        self._average = large_bytes // len(batch.messages) if large_bytes else 0
        self._bytes = min(CLAIM_BYTES, 2 * self._bytes)

    def failed(self) -> None:
        """Learn that a claim brought no answer."""
        self._bytes = max(_LEAST_BYTES, self._bytes // 2)
