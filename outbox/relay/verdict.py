"""What becomes of a message, given the sink's answer. Pure: the one table of outcomes in this program.

| outcome      | what happens to the message                       | attempt counted |
|--------------|---------------------------------------------------|-----------------|
| Delivered    | completed, without a decision here                | –               |
| Rejected     | buried at once                                    | yes             |
| Failed       | retried with backoff, buried at max_attempts      | yes             |
| Throttled    | "sink": next in line again; "message": retried    | no              |
| Unknown      | retried with backoff under the same message id    | no              |

`Unavailable` is decided after a probe of the sink, by its meaning:

| meaning    | the sink is down                 | the sink is well                                         |
|------------|----------------------------------|----------------------------------------------------------|
| unreached  | released                         | as Unknown; the first time at once                       |
| unanswered | as Unknown, due when it is back  | as Unknown                                               |
| refused    | released                         | as Failed                                                |
| closed     | released                         | as Failed, if another delivery has succeeded since       |

The sink is well if the probe says so, or says nothing and another delivery has succeeded since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from outbox.model.errors import clean
from outbox.model.message import Message
from outbox.model.sink import Failed, Rejected, Retryable, Throttled, Unavailable, Unclear, Undelivered, Unknown
from outbox.relay.settings import RelaySettings
from outbox.store.messages import Burial, Retry


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lease back unharmed."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Keep the lease; deliver the message again as soon as the pace allows."""


_IN_DOUBT = (
    "its turn came after expires_at, but an earlier delivery may have got through, before a crash of a worker or of "
    "PostgreSQL: see with `outbox audit`, then requeue or discard it"
)

Verdict = Retry | Burial | Release | PutBack


def is_well(outcome: Unavailable, probed: Unavailable | Unclear | None, *, delivered: bool) -> bool:
    """Say whether the sink takes other messages than the one that failed so, given the probe that came after it.

    `delivered`: another delivery has succeeded since.
    """
    if isinstance(probed, Unavailable):
        return False
    if delivered or outcome.meaning in ("unreached", "unanswered"):  # any answer shows that it can be reached
        return True
    return probed is None and outcome.meaning == "refused"


def tried(outcome: Unavailable, *, well: bool) -> Unavailable | Failed | Unknown:
    """What an unavailable sink means for the message, once it is known whether the sink is well."""
    if outcome.meaning in ("refused", "closed"):
        return Failed(outcome.kind, outcome.detail) if well else outcome
    return Unknown(outcome.kind, outcome.detail) if well or outcome.meaning == "unanswered" else outcome


def judge(message: Message, outcome: Undelivered, settings: RelaySettings, *, at_once: bool = False) -> Verdict:
    """Decide what becomes of a message that the sink has not taken. `at_once`: an unknown outcome needs no backoff."""
    match outcome:
        case Rejected():
            return Burial(message, "rejected", counted=True, kind=outcome.kind, detail=clean(outcome.detail))
        case Unavailable():
            return Release()
        case Throttled(scope="sink"):
            return PutBack()
        case Failed() if message.attempts + 1 >= settings.max_attempts and not _keeps_its_turn(message, settings):
            return Burial(message, "exhausted", counted=True, kind=outcome.kind, detail=clean(outcome.detail))
        case Failed():
            return _retry(message, outcome, settings, failures=message.attempts + 1, counted=True)
        case Unknown() if at_once:
            return Retry(message, 0.0, counted=False, kind=outcome.kind, detail=clean(outcome.detail))
        case _:
            return _retry(message, outcome, settings, failures=message.setbacks + 1, counted=False)


def soften(message: Message, outcome: Undelivered, settings: RelaySettings) -> Undelivered:
    """The outcome, unless the message would be buried although its key is to wait for it."""
    if isinstance(outcome, Rejected) and _keeps_its_turn(message, settings):
        return Failed(outcome.kind, outcome.detail)
    return outcome


def quarantine(message: Message, settings: RelaySettings) -> Burial | None:
    """Return the burial of a message that has been claimed too often without any outcome, else None."""
    if message.deliveries <= settings.max_deliveries:
        return None
    detail = f"{settings.max_deliveries} workers in a row ended without an answer while they held this message"
    return Burial(message, "quarantined", counted=False, kind="QUARANTINED", detail=detail)


def expire(message: Message) -> Burial | None:
    """Return the end of a message that was claimed after its expiry, else None."""
    if message.expired is None:
        return None
    reason: Literal["expired", "discarded"] = "discarded" if message.expired == "discard" else "expired"
    detail = _IN_DOUBT if message.expired == "doubt" else "its turn came after expires_at"
    return Burial(message, reason, counted=False, kind="EXPIRED", detail=detail)


def is_suspect(message: Message, settings: RelaySettings) -> bool:
    """Say whether the message must be delivered with nothing else in flight."""
    return message.deliveries > settings.suspect_after


def _keeps_its_turn(message: Message, settings: RelaySettings) -> bool:
    return message.key is not None and settings.keyed_failure == "wait"


def _retry(message: Message, outcome: Retryable, settings: RelaySettings, *, failures: int, counted: bool) -> Retry:
    return Retry(message, settings.retry.delay_s(failures), counted, outcome.kind, clean(outcome.detail))
