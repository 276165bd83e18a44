"""The message as a worker holds it: one claimed row, immutable."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

LeaseId = tuple[UUID, int]
"""A message id and the token of one claim of it."""

Place = tuple[float, int]
"""A message's position in the order of claiming: when it fell due, in Unix seconds, and its `seq`."""

Presence = tuple[int, int]
"""A worker id and the advisory lock under which the worker is present: another one for each of its sessions."""

FRONT: Place = (-inf, 0)
"""Before every message."""

CLAIM_BYTES = 8 * 2**20
"""A claim takes no further message when it has this many bytes: half a second on a link of 16 MB/s."""


class Message(NamedTuple):
    """A claimed row of `outbox.message`. Field order is the column order of `sql/queries/claim/plain.sql`.

    A named tuple, because tens of thousands are made each second and its constructor is C code.
    JSON columns stay text: the sink passes the payload's bytes through untouched and parses only what it needs.
    """

    message_id: UUID
    """Identity for ever, through retries and requeues; a Temporal sink uses it as the request id."""
    seq: int
    """The order in which the database numbered the messages."""
    topic: str
    key: str | None
    payload: str | None
    """JSON text exactly as the producer wrote it; None when there is no payload at all."""
    headers: str
    """JSON object as text; `{}` when empty."""
    target: str | None
    """JSON object as text that says what the sink has to do; None leaves it to the sink's routes."""
    deliveries: int
    """Claims since the last known outcome, this one included. Rises when a worker dies with the message."""
    attempts: int
    """How often the message itself has failed. Outages, throttling and lost leases do not count."""
    setbacks: int
    """Length of the message's error history, counted or not; paces retries of unknown outcomes.

    One more if PostgreSQL crashed or failed over since it was due: an earlier claim may be lost (`outbox.uptime`).
    """
    age_s: float
    """Seconds from the enqueue to this claim, both by the database's clock."""
    lease_token: int
    """Fencing token of the claim; every settle is conditional on it."""
    tenant: str | None = None
    """The tenant that it belongs to; tenants take turns. None: it belongs to none."""
    expired: str | None = None
    """What to do with it because its turn came too late: `bury` or `discard`; None when it came in time.

    `doubt`: too late, but an earlier delivery may have got through.
    """
    due_s: float = 0.0
    """When it fell due, in Unix seconds: its place in the order of claiming, where among equals `seq` decides."""
    at_once: bool = True
    """Whether it was available when it was enqueued, so that a wake-up source should have announced it."""
    large_bytes: int | None = None
    """Size of payload, headers and target as UTF-8, of messages above 4 KiB. None for the others."""

    @property
    def lease(self) -> LeaseId:
        """The lease under which this worker holds the message."""
        return self.message_id, self.lease_token

    @property
    def is_fresh(self) -> bool:
        """Whether it was due when enqueued, and never claimed before: a source should have announced it."""
        return self.at_once and self.deliveries == 1 and not self.setbacks

    @property
    def label(self) -> str:
        """What a person would call this message in a log line."""
        return f"{self.topic}/{self.message_id}"


class ClaimedBatch(NamedTuple):
    """What one claim brought: the messages, and until when the worker may act on them."""

    messages: list[Message]
    claimed_s: float
    """When the claim's answer came, on this process's monotonic clock."""
    expires_s: float
    """End of the lease on the same clock, never later than the database's: it is counted from before the claim."""
    more: bool
    """Whether there may be further messages to claim now."""
    next_due_s: float | None = None
    """Of a claim of restricted messages: seconds until the next one is worthwhile; None if none will be."""
    lane: str | None = None
    """Of a claim of restricted messages: where the next one continues, empty for the beginning. Else None."""


class Outlook(NamedTuple):
    """What there is to claim, and when there will be something."""

    seen_s: float
    """When this was so, on this process's monotonic clock."""
    due: bool
    """Whether messages without restrictions are due."""
    ruled: bool
    """Whether limits or pauses are in force, of which messages may learn only when they are claimed."""
    restricted: bool
    """Whether restricted messages wait for `Store.claim_restricted`."""
    next_due_s: float | None
    """Seconds until the next scheduled or abandoned message falls due; None when there is none."""
    held: bool
    """Whether other workers hold leases, or may, and would be seen to die."""


class Pause(NamedTuple):
    """What is not to be delivered: a topic (exact, or `prefix.*`), a key, or with neither everything."""

    topic: str | None = None
    key: str | None = None

    def holds(self, message: Message) -> bool:
        """Whether the message is meant. The database's `outbox.matches` says the same of topics."""
        if self.topic is None:
            return self.key is None or self.key == message.key
        if self.topic.endswith("*"):
            return message.topic.startswith(self.topic[:-1])
        return self.topic == message.topic


class Delivery(NamedTuple):
    """One message on its way through the relay. Times are monotonic seconds of this process."""

    message: Message
    claimed_s: float
    expires_s: float
    rest: Sequence[Message] = ()
    """Messages of the same key that go after it, one by one: each only if the one before it is done with."""

    @property
    def messages(self) -> list[Message]:
        """All that is in it."""
        return [self.message, *self.rest]

    @property
    def next(self) -> Delivery:
        """What is left of it after its first message."""
        return Delivery(self.rest[0], self.claimed_s, self.expires_s, self.rest[1:])
