"""From an outcome to actions: what to do with each message of a delivery. Pure; `verdict.py` has the rules.

A delivery may bring further messages of its key along. They follow when the first one is settled, or go back with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

from outbox.model.events import ReleaseReason, Settlement
from outbox.model.message import Delivery, Message
from outbox.model.sink import Failed, Rejected, Retryable, Undelivered
from outbox.relay.settings import RelaySettings
from outbox.relay.verdict import Release, judge, soften
from outbox.store.messages import Burial, Retry


class RetryAction(NamedTuple):
    """Put a message back for later."""

    message: Message
    retry: Retry
    outcome: Retryable


class BuryAction(NamedTuple):
    """Move a message to the dead letters."""

    message: Message
    burial: Burial
    outcome: Rejected | Failed


class ReleaseAction(NamedTuple):
    """Give a lease back."""

    message: Message
    why: ReleaseReason


SettleAction = Settlement | RetryAction | BuryAction | ReleaseAction
Action = SettleAction | Delivery
"""A `Delivery` among the actions is to be made next."""


IsPaused = Callable[[Message], bool]


def released(messages: Iterable[Message], why: ReleaseReason) -> list[SettleAction]:
    """Give back the leases of these messages."""
    return [ReleaseAction(message, why) for message in messages]


def following(delivery: Delivery, ending: ReleaseReason | None, is_paused: IsPaused | None) -> list[Action]:
    """What to do with the messages that were claimed with one that is settled.

    `ending` is why no further delivery begins, None while they do. `is_paused` is None when nothing is paused.
    """
    if not delivery.rest:
        return []
    if ending is not None:
        return [*released(delivery.rest, ending)]
    if is_paused is not None and any(map(is_paused, delivery.rest)):
        return [*released(delivery.rest, "pause")]
    return [delivery.next]


def concluded(
    delivery: Delivery,
    outcome: Undelivered,
    settings: RelaySettings,
    ending: ReleaseReason | None,
    is_paused: IsPaused | None,
    *,
    at_once: bool = False,
) -> list[Action]:
    """What to do with a delivery that the sink did not take. `at_once`: an unknown outcome needs no backoff."""
    message = delivery.message
    outcome = soften(message, outcome, settings)
    verdict = judge(message, outcome, settings, at_once=at_once)
    if isinstance(verdict, Retry):
        return [RetryAction(message, verdict, cast("Retryable", outcome)), *released(delivery.rest, "order")]
    if isinstance(verdict, Burial):
        burial = BuryAction(message, verdict, cast("Rejected | Failed", outcome))
        return [burial, *following(delivery, ending, is_paused)]
    if isinstance(verdict, Release) or ending is not None:
        return [*released(delivery.messages, ending or "hold")]
    return [delivery]  # put back
