"""From an outcome to actions: the message of a delivery, and those of its key that were claimed with it."""

from __future__ import annotations

from uuid import UUID

import pytest

from outbox.model.events import ReleaseReason
from outbox.model.message import Delivery, Message
from outbox.model.sink import Failed, Rejected, Throttled, Unavailable, Undelivered, Unknown
from outbox.relay.conclude import Action, BuryAction, ReleaseAction, RetryAction, concluded, following
from outbox.relay.settings import RelaySettings

ONE, TWO, THREE = (
    Message(UUID(int=seq), seq, "t", "k", None, "{}", None, 1, 0, 0, 0.0, seq, due_s=0.0) for seq in (1, 2, 3)
)
DELIVERY = Delivery(ONE, 10.0, 70.0, [TWO, THREE])
NEXT = Delivery(TWO, 10.0, 70.0, [THREE])
WHY: list[ReleaseReason] = ["drain", "hold"]


def shown(actions: list[Action]) -> list[tuple[str, int, str | None]]:
    """Each action by its name, its message and, for a release, its reason."""
    return [
        (type(action).__name__, action.message.seq, action.why if isinstance(action, ReleaseAction) else None)
        for action in actions
    ]


def test_the_next_of_a_key_follows_a_settled_message() -> None:
    assert following(DELIVERY, None, None) == [NEXT]
    assert following(Delivery(ONE, 10.0, 70.0), None, None) == []


@pytest.mark.parametrize("ending", WHY)
def test_nothing_follows_when_the_relay_stops_or_holds(ending: ReleaseReason) -> None:
    assert shown(following(DELIVERY, ending, None)) == [("ReleaseAction", 2, ending), ("ReleaseAction", 3, ending)]


def test_nothing_follows_when_one_of_the_rest_is_paused() -> None:
    actions = following(DELIVERY, None, lambda message: message is THREE)
    assert shown(actions) == [("ReleaseAction", 2, "pause"), ("ReleaseAction", 3, "pause")]


@pytest.mark.parametrize("outcome", [Failed("K", ""), Unknown("K", ""), Throttled("K", "", scope="message")])
def test_a_message_that_is_retried_keeps_its_place_before_the_rest(outcome: Undelivered) -> None:
    retry, *rest = concluded(DELIVERY, outcome, RelaySettings(), None, None)
    assert isinstance(retry, RetryAction)
    assert (retry.message, retry.outcome) == (ONE, outcome)
    assert shown(rest) == [("ReleaseAction", 2, "order"), ("ReleaseAction", 3, "order")]


def test_the_next_of_a_key_follows_a_dead_letter() -> None:
    burial, *rest = concluded(DELIVERY, Rejected("K", "why"), RelaySettings(), None, None)
    assert isinstance(burial, BuryAction)
    assert (burial.burial.reason, burial.outcome) == ("rejected", Rejected("K", "why"))
    assert rest == [NEXT]


def test_a_sink_that_throttles_gets_the_same_delivery_again() -> None:
    throttled = Throttled("BUSY", "")
    assert concluded(DELIVERY, throttled, RelaySettings(), None, None) == [DELIVERY]
    assert {why for *_, why in shown(concluded(DELIVERY, throttled, RelaySettings(), "drain", None))} == {"drain"}


@pytest.mark.parametrize("ending", [None, *WHY])
def test_a_message_for_which_the_sink_is_unavailable_goes_back_with_the_rest(ending: ReleaseReason | None) -> None:
    actions = concluded(DELIVERY, Unavailable("DOWN", ""), RelaySettings(), ending, None)
    assert shown(actions) == [("ReleaseAction", seq, ending or "hold") for seq in (1, 2, 3)]
