"""The table of outcomes, line by line."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import pytest

from outbox.model.errors import clean
from outbox.model.message import Message
from outbox.model.sink import Failed, Rejected, Throttled, Unavailable, Unclear, Undelivered, Unknown
from outbox.relay.settings import RelaySettings
from outbox.relay.verdict import (
    _IN_DOUBT,
    PutBack,
    Release,
    expire,
    is_suspect,
    is_well,
    judge,
    quarantine,
    soften,
    tried,
)
from outbox.store.messages import Burial, Retry

SETTINGS = RelaySettings(max_attempts=3, suspect_after=2, max_deliveries=5, retry_base_s=1.0, retry_cap_s=8.0)


def message(*, attempts: int = 0, setbacks: int = 0, deliveries: int = 1) -> Message:
    return Message(UUID(int=1), 1, "t", None, None, "{}", None, deliveries, attempts, setbacks, 0.0, 1)


@pytest.mark.parametrize("attempts", [0, 1, 100])
def test_rejected_is_buried_at_once(attempts: int) -> None:
    verdict = judge(message(attempts=attempts), Rejected("BAD", "why"), SETTINGS)
    assert isinstance(verdict, Burial)
    assert (verdict.reason, verdict.counted, verdict.kind, verdict.detail) == ("rejected", True, "BAD", "why")


def test_unavailable_is_released_and_sink_throttling_put_back() -> None:
    assert judge(message(), Unavailable("DOWN", ""), SETTINGS) == Release()
    assert judge(message(), Throttled("BUSY", ""), SETTINGS) == PutBack()


@pytest.mark.parametrize(("attempts", "buried"), [(0, False), (1, False), (2, True), (3, True)])
def test_failed_is_retried_until_its_last_attempt(attempts: int, buried: bool) -> None:
    verdict = judge(message(attempts=attempts), Failed("NOPE", ""), SETTINGS)
    if buried:
        assert isinstance(verdict, Burial)
        assert (verdict.reason, verdict.counted) == ("exhausted", True)
    else:
        assert isinstance(verdict, Retry)
        assert verdict.counted


@pytest.mark.parametrize("outcome", [Unknown("LOST", ""), Throttled("BUSY", "", scope="message")])
def test_what_is_not_the_messages_fault_is_retried_for_ever(outcome: Undelivered) -> None:
    verdict = judge(message(attempts=2, setbacks=1000), outcome, SETTINGS)
    assert isinstance(verdict, Retry)
    assert not verdict.counted


@pytest.mark.parametrize(
    ("outcome", "tried", "longest_s"),
    [
        (Failed("NOPE", ""), message(attempts=0, setbacks=50), 1.0),
        (Failed("NOPE", ""), message(attempts=1), 2.0),
        (Unknown("LOST", ""), message(setbacks=0), 1.0),
        (Unknown("LOST", ""), message(setbacks=2), 4.0),
        (Unknown("LOST", ""), message(setbacks=1000), 8.0),
    ],
)
def test_delay_grows_with_what_has_failed_before(outcome: Undelivered, tried: Message, longest_s: float) -> None:
    verdict = judge(tried, outcome, SETTINGS)
    assert isinstance(verdict, Retry)
    assert longest_s / 2 <= verdict.delay_s <= longest_s


@pytest.mark.parametrize(
    ("deliveries", "suspect", "quarantined"), [(1, 0, 0), (2, 0, 0), (3, 1, 0), (5, 1, 0), (6, 1, 1)]
)
def test_claims_without_outcome_make_a_suspect_and_then_a_killer(
    deliveries: int, suspect: bool, quarantined: bool
) -> None:
    claimed = message(deliveries=deliveries)
    assert is_suspect(claimed, SETTINGS) == suspect
    burial = quarantine(claimed, SETTINGS)
    assert (burial is not None) == quarantined
    if burial:
        assert (burial.reason, burial.counted) == ("quarantined", False)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [("plain", "plain"), ("a\0b", "a\N{REPLACEMENT CHARACTER}b"), ("\ud800", "?"), ("x" * 9999, "x" * 2000)],
)
def test_error_text_is_made_fit_for_the_database(raw: str, stored: str) -> None:
    assert clean(raw) == stored


DOWN = Unavailable("DOWN", "")
UNCLEAR = Unclear("PERMISSION_DENIED", "")


@pytest.mark.parametrize(
    ("meaning", "probed", "delivered", "well"),
    [
        *((meaning, DOWN, True, False) for meaning in ("unreached", "unanswered", "refused", "closed")),
        ("unreached", None, False, True),
        ("unreached", UNCLEAR, False, True),
        ("unanswered", None, False, True),
        ("unanswered", UNCLEAR, False, True),
        ("refused", None, False, True),
        ("refused", UNCLEAR, False, False),
        ("refused", UNCLEAR, True, True),
        ("closed", None, False, False),
        ("closed", None, True, True),
    ],
)
def test_a_sink_is_well_by_its_probe_or_by_another_delivery(
    meaning: Any, probed: Unavailable | Unclear | None, delivered: bool, well: bool
) -> None:
    assert is_well(Unavailable("X", "", meaning), probed, delivered=delivered) is well


@pytest.mark.parametrize(
    ("meaning", "when_well", "when_down"),
    [
        ("unreached", Unknown, Unavailable),
        ("unanswered", Unknown, Unknown),
        ("refused", Failed, Unavailable),
        ("closed", Failed, Unavailable),
    ],
)
def test_a_failure_is_the_messages_own_only_if_the_sink_is_well(meaning: Any, when_well: type, when_down: type) -> None:
    outcome = Unavailable("X", "", meaning)
    assert (type(tried(outcome, well=True)), type(tried(outcome, well=False))) == (when_well, when_down)


def test_an_unknown_outcome_may_be_tried_again_at_once() -> None:
    verdict = judge(message(), Unknown("X", ""), SETTINGS, at_once=True)
    assert isinstance(verdict, Retry)
    assert (verdict.delay_s, verdict.counted) == (0.0, False)


@pytest.mark.parametrize(
    ("key", "rule", "softened"),
    [("k", "wait", True), ("k", "bury", False), (None, "wait", False), (None, "bury", False)],
)
def test_only_a_keyed_message_whose_key_waits_is_never_buried_for_a_failure(
    key: str | None, rule: Literal["bury", "wait"], softened: bool
) -> None:
    settings = RelaySettings(max_attempts=3, keyed_failure=rule)
    keyed = message(attempts=100)._replace(key=key)
    rejected = Rejected("BAD", "why")
    assert soften(keyed, rejected, settings) == (Failed("BAD", "why") if softened else rejected)
    assert soften(keyed, Unknown("LOST", ""), settings) == Unknown("LOST", "")
    assert isinstance(judge(keyed, Failed("NOPE", ""), settings), Retry if softened else Burial)


@pytest.mark.parametrize(
    ("expired", "reason", "detail"),
    [
        ("discard", "discarded", "its turn came after expires_at"),
        ("bury", "expired", "its turn came after expires_at"),
        ("doubt", "expired", _IN_DOUBT),
    ],
)
def test_an_expired_message_ends_uncounted(expired: str, reason: str, detail: str) -> None:
    ended = message()._replace(expired=expired)
    assert expire(ended) == Burial(ended, reason, counted=False, kind="EXPIRED", detail=detail)


def test_a_message_in_time_does_not_end() -> None:
    assert expire(message()) is None
