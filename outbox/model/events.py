"""The one stream of typed events.

The core reports what happens only here; logs, metrics, tests and benchmarks subscribe. Events of the hot path carry
whole batches, so that a subscriber is called once for each statement. They are named tuples because a dataclass
takes seven times as long to define, and each start of a worker defines them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from outbox.model.dead_letter_reason import BurialReason
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Rejected, Retryable, Unavailable

ReleaseReason = Literal["hold", "drain", "lease", "pause", "suspect", "order"]
"""Why a lease was given back. `hold`: the sink is unavailable. `drain`: the worker stops. `lease`: it would not have
lasted. `pause`: the message was paused. `suspect`: it was claimed together with a suspect, which is delivered alone.
`order`: an earlier message of its key has to be tried again."""


class WorkerStarted(NamedTuple):
    """The worker is connected and its loops run. `database` and `sink` say where they are, and no secret.

    `http_port` is 0 where no pages are served.
    """

    worker: str
    schema: str
    database: str = ""
    sink: str = ""
    mode: str = ""
    http_port: int = 0


class Claimed(NamedTuple):
    """A claim brought at least one message. `took_s` is the statement's round trip in seconds."""

    messages: list[Message]
    took_s: float


class Settlement(NamedTuple):
    """One delivered message and what came of it.

    `delivered_s` is the monotonic time of the sink's answer, `latency_s` the seconds from enqueue to that answer.
    """

    message: Message
    outcome: Delivered
    delivered_s: float
    latency_s: float


class Completed(NamedTuple):
    """A settle statement moved these messages out of the hot table. `took_s` is its round trip in seconds."""

    settlements: list[Settlement]
    took_s: float


class Retried(NamedTuple):
    """The message goes back and falls due in `delay_s` seconds. `counted` says whether an attempt was burnt."""

    message: Message
    outcome: Retryable
    delay_s: float
    counted: bool


class Buried(NamedTuple):
    """The message is a dead letter: rejected, out of attempts, a killer, or expired. `discarded` is none: as asked."""

    message: Message
    reason: BurialReason
    outcome: Rejected | Failed


class Released(NamedTuple):
    """These messages went back uncounted, due at once."""

    messages: list[Message]
    why: ReleaseReason


class LeaseLost(NamedTuple):
    """Another worker had taken the lease of these messages before they could be settled; nothing was written.

    `certain` is False when an earlier try of the same settle broke off: it may have been our own success.
    """

    messages: list[Message]
    certain: bool = True


class Rescued(NamedTuple):
    """A worker died, and `leases` on messages that it held are ended: they are due again."""

    worker: str
    leases: int


class PresenceShown(NamedTuple):
    """A session of this worker's own shows others that it lives: if it dies, they take over its messages at once."""

    worker_id: int


class PresenceLost(NamedTuple):
    """Nothing shows others that this worker lives. If it dies now, its messages wait until their leases end."""

    error: str


class SettleRefused(NamedTuple):
    """The database refused to settle this message; its lease runs out and it is delivered again."""

    message: Message
    error: str


class DeliveryStuck(NamedTuple):
    """The sink overran its time-out; the delivery was given up with an unknown outcome after `after_s` seconds."""

    message: Message
    after_s: float


class Held(NamedTuple):
    """The sink is unavailable: nothing is claimed until a probe succeeds.

    Emitted when holding begins, with `held_s` 0, and again while it lasts.
    """

    outcome: Unavailable
    held_s: float = 0.0


class Resumed(NamedTuple):
    """A probe succeeded after `held_s` seconds of holding."""

    held_s: float


class PaceChanged(NamedTuple):
    """Throttling changed the relay's speed limit, in messages a second; None means no limit any more."""

    rate: float | None
    cause: str


class SlotsChanged(NamedTuple):
    """Time-outs changed how many deliveries may be in flight; `slots` equals `of`, all of them, when they are over."""

    slots: int
    of: int


class SourceReady(NamedTuple):
    """A wake-up source is subscribed."""

    source: str


class SourceLost(NamedTuple):
    """A wake-up source was lost; the worker polls. It tries again in `retry_in_s` seconds."""

    source: str
    error: str
    retry_in_s: float


class SourceDegraded(NamedTuple):
    """A poll found messages that a subscribed source, silent for `silent_s` seconds around, had not announced.

    Polling is quick again until the source has proved itself.
    """

    source: str
    silent_s: float


class SourceRestored(NamedTuple):
    """A degraded source announces messages again, and is trusted."""

    source: str


class ModeChanged(NamedTuple):
    """The worker changed what it listens to. `mode` is what was asked for, `sources` what now runs, `why` the cause."""

    mode: str
    sources: tuple[str, ...]
    why: str


class CopyFound(NamedTuple):
    """The database is a copy of the one in which the outbox lived: everything is paused until a person adopts it."""

    detail: str


class CopyAdopted(NamedTuple):
    """A person has said that this database is the outbox now. `was` is why it was none before."""

    was: str


class DatabaseLost(NamedTuple):
    """A statement could not reach the database; it is tried again for ever.

    Emitted for each new kind of error, with `lost_s` 0, and again while it lasts.
    """

    doing: str
    error: str
    lost_s: float = 0.0


class DatabaseRestored(NamedTuple):
    """The database answers again after `lost_s` seconds."""

    doing: str
    lost_s: float


class MaintenanceFailed(NamedTuple):
    """A slow duty was refused by the database; it is tried again at its next turn."""

    duty: str
    error: str


class DrainStarted(NamedTuple):
    """The worker stops claiming and finishes what is in flight."""

    in_flight: int


class Drained(NamedTuple):
    """The worker ended its drain; `abandoned` deliveries were still out when its time ran up."""

    took_s: float
    abandoned: int


Event = (
    WorkerStarted
    | Claimed
    | Completed
    | Retried
    | Buried
    | Released
    | LeaseLost
    | Rescued
    | PresenceShown
    | PresenceLost
    | SettleRefused
    | DeliveryStuck
    | Held
    | Resumed
    | PaceChanged
    | SlotsChanged
    | SourceReady
    | SourceLost
    | SourceDegraded
    | SourceRestored
    | ModeChanged
    | CopyFound
    | CopyAdopted
    | DatabaseLost
    | DatabaseRestored
    | MaintenanceFailed
    | DrainStarted
    | Drained
)

Emit = Callable[[Event], None]
"""How the core reports: a synchronous call that must not block."""


class Events:
    """Passes each event to every subscriber, in the order in which they subscribed."""

    def __init__(self, *subscribers: Emit) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Emit) -> None:
        """Add a subscriber. An exception that it raises reaches the emitting loop, so it must not raise."""
        self._subscribers.append(subscriber)

    def __call__(self, event: Event) -> None:
        """Call every subscriber."""
        for subscriber in self._subscribers:
            subscriber(event)
