"""What the core asks of a sink, and the six things a sink may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from outbox.model.finding import Finding
from outbox.model.message import Message


class Action(NamedTuple):
    """What a target asks for, as the history keeps it: `workflow` is the type."""

    operation: str | None = None
    workflow: str | None = None
    namespace: str | None = None
    task_queue: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has it. `duplicate` says that an earlier start of other origin holds the workflow id.

    `action` is what the message's target asks for. A sink that reads targets returns it, so that they are read once.
    """

    workflow_id: str | None = None
    run_id: str | None = None
    duplicate: bool = False
    action: Action | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """This message can never be delivered as it is: it becomes a dead letter at once."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The message failed, and may succeed later: one attempt is counted and it is retried with backoff."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too much at once; nothing was done and no attempt is counted.

    `scope` "sink" slows the whole relay; "message" (one busy workflow id) postpones only this message.
    """

    kind: str
    detail: str
    scope: Literal["sink", "message"] = "sink"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The sink did not take this message, and may not take any other: the relay probes before it decides.

    After a bad probe it holds and releases its leases. After a good one the fault is the message's own.
    """

    kind: str
    detail: str
    meaning: Literal["unreached", "unanswered", "refused", "closed"] = "unreached"
    """What is known of the request. *unreached*: it was not sent. *unanswered*: it may have been carried out.
    *refused*: it was not carried out, and the other side may refuse this message only. *closed*: the other side says
    itself that it takes no message, so only another delivery can prove the opposite.
    """


@dataclass(frozen=True, slots=True)
class Unclear:
    """A probe's answer: the other side is there, but does not say whether it takes messages."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is not known whether it was done. The same message is delivered again under the same message id.

    `timed_out` says that no answer came in time: the relay then has fewer deliveries in flight.
    """

    kind: str
    detail: str
    timed_out: bool = False


Retryable = Failed | Throttled | Unknown
Undelivered = Rejected | Retryable | Unavailable
Outcome = Delivered | Undelivered


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink needs to know of the worker that runs it."""

    identity: str
    """The worker's name, for the other side's logs."""
    deliver_timeout_s: float
    """`deliver` must answer within this many seconds; the relay gives a late one up as unknown."""


class Sink(Protocol):
    """Where messages go. One object serves many concurrent deliveries on one event loop.

    Neither method raises for anything that the other side did: it answers with an outcome. An exception is a fault of
    the sink; the relay counts it against the message as `Failed`, and logs its class and place but not its text, which
    may quote a payload. What a sink says in `detail` is logged: it quotes no payload. A sink may have an attribute
    `place`: a text without secrets that says where it delivers to, for the log and `outbox status`.
    """

    async def deliver(self, message: Message) -> Outcome:
        """Deliver one message, within the context's `deliver_timeout_s`. Must be idempotent per message id."""
        ...

    async def probe(self) -> Unavailable | Unclear | None:
        """Say whether deliveries can be taken now; None means yes. Answers within `deliver_timeout_s`."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """What a sink has in addition if it recognises a message id that it has seen for a limited time only.

    `outbox dead requeue` asks before it has a message delivered again. A sink without this never forgets.
    """

    async def memory_s(self, namespace: str | None) -> float | Unavailable:
        """Seconds for which a repeat is recognised, counted from the delivery; `inf` for ever.

        `namespace` is the one that a message's target names; None is the sink's own. Raises nothing: where the other
        side does not report it, the answer is Unavailable with the reason. Answers within `deliver_timeout_s`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """A way that unsettled messages are to go: what their targets say, or their topic where they have none."""

    topic: str | None
    operation: str | None
    namespace: str | None
    task_queue: str | None


@dataclass(frozen=True, slots=True)
class Demand:
    """What the outbox will ask of a sink, and for how long it looks back."""

    ways: tuple[Way, ...]
    """Of a large backlog, those of a part."""
    dead_s: Mapping[str | None, float]
    """By namespace: for how many seconds the oldest dead letter that starts something has been tried."""
    history_s: float
    """Seconds for which delivered messages stay in the history; 0 where they do not."""
    recent: tuple[tuple[str | None, str], ...] = ()
    """Namespace and task queue of messages that were delivered within the last hour."""


@runtime_checkable
class Examiner(Protocol):
    """What a sink's factory has in addition if `outbox doctor` is to say more about the sink than its probe."""

    async def examine(self, context: SinkContext, demand: Demand | None) -> list[Finding]:
        """Examine the sink's settings and its other side; `demand` is None if the outbox cannot be read.

        It raises nothing. What cannot be tried, it says with the reason, and goes on.
        """
        ...


def examiner(factory: object) -> Examiner | None:
    """A sink's factory, if it examines."""
    return factory if isinstance(factory, Examiner) else None


SinkFactory = Callable[[SinkContext], AbstractAsyncContextManager[Sink]]
"""What `OUTBOX_SINK=module:attribute` names. Entering it must not wait for the other side to be reachable."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it is in effect, for `outbox config`. Of a secret, `value` is a mask already."""

    name: str
    value: str | float | bool | None
    origin: str
    """Where it comes from: `default`, `environment variable NAME`, …"""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What a sink says of its own settings, without connecting to anything: one fault a line."""

    settings: tuple[Setting, ...]
    faults: tuple[str, ...] = ()


SinkSettingsReader = Callable[[], SinkSettings]
"""What the entry-point group `outbox.settings` holds, each under the name of its sink's module, or of another program
that a distribution brings along; `outbox config` shows them too. It raises nothing."""
