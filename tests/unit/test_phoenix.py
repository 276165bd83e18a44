"""Realtime's protocol: what each frame, and each silence, means."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.wakeup.phoenix import Action, Channel, Fail, Hint, Ready, Refresh, Send, Via, expiry
from outbox.wakeup.realtime import socket_url

TOPIC = "realtime:outbox"
UNIX_S = 1_800_000_000.0


def jwt(**claims: Any) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "x"}, claims, 1)
    )


def frame(event: str, payload: Any, *, topic: str = TOPIC, ref: str | None = None) -> str:
    return json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref})


def joining(via: Via = "postgres_changes", token: str = "key") -> Channel:
    channel = Channel(via, "outbox")
    channel.join(token, 0.0, UNIX_S)
    return channel


def ready() -> Channel:
    channel = joining()
    channel.receive(JOINED, 0.0)
    channel.receive(SUBSCRIBED, 0.0)
    return channel


JOINED = frame("phx_reply", {"status": "ok", "response": {"postgres_changes": [{"id": 1}]}}, ref="1")
SUBSCRIBED = frame(
    "system", {"message": "Subscribed to PostgreSQL", "status": "ok", "extension": "postgres_changes", "channel": "x"}
)


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(action.frame) for action in actions if isinstance(action, Send)]


def test_join_asks_for_inserts_into_the_message_table() -> None:
    [join] = sent(Channel("postgres_changes", "outbox").join("key", 0.0, UNIX_S))
    assert (join["topic"], join["event"], join["ref"], join["join_ref"]) == (TOPIC, "phx_join", "1", "1")
    assert join["payload"]["access_token"] == "key"
    [change] = join["payload"]["config"]["postgres_changes"]
    assert change == {"event": "INSERT", "schema": "outbox", "table": "message"}


def test_broadcast_is_a_private_channel() -> None:
    [join] = sent(Channel("broadcast", "outbox").join("key", 0.0, UNIX_S))
    assert join["payload"]["config"]["private"] is True
    assert "postgres_changes" not in join["payload"]["config"]


def test_join_alone_does_not_make_ready() -> None:
    assert joining().receive(JOINED, 0.0) == []


def test_subscription_makes_ready_and_so_does_every_further_one() -> None:
    channel = joining()
    channel.receive(JOINED, 0.0)
    assert channel.receive(SUBSCRIBED, 0.0) == [Ready()]
    assert channel.receive(SUBSCRIBED, 5.0) == [Ready()]


def system(message: str, status: str = "ok", extension: str = "system") -> str:
    return frame("system", {"message": message, "status": status, "extension": extension, "channel": "outbox"})


def test_broadcast_is_ready_when_the_server_reports_its_replication() -> None:
    channel = Channel("broadcast", "outbox")
    [join] = sent(channel.join("key", 0.0, UNIX_S))
    assert join["payload"]["config"]["broadcast"]["replication_ready"] is True
    assert channel.receive(JOINED, 0.0) == []
    assert channel.receive(system("something else"), 0.5) == []
    assert channel.receive(system("Replication connection established"), 1.0) == [Ready()]


def test_broadcast_without_replication_fails_with_the_servers_reason() -> None:
    channel = joining("broadcast")
    channel.receive(JOINED, 0.0)
    assert channel.receive(system("no replication", "error"), 60.0) == [Fail("no replication")]


def test_server_that_does_not_report_its_replication_counts_as_ready_after_a_minute() -> None:
    channel = joining("broadcast")
    channel.receive(JOINED, 0.0)
    now_s = 0.0
    while (actions := channel.tick(now_s)) != [Ready()]:
        for beat in sent(actions):
            channel.receive(frame("phx_reply", {}, topic="phoenix", ref=beat["ref"]), now_s)
        now_s = channel.next_s
    assert 60.0 < now_s < 70.0
    assert channel.next_s > now_s


@pytest.mark.parametrize("private", [False, True])
def test_changes_are_joined_as_the_project_asks(private: bool) -> None:
    [join] = sent(Channel("postgres_changes", "outbox", private=private).join("key", 0.0, UNIX_S))
    assert join["payload"]["config"]["private"] is private
    assert join["payload"]["config"]["broadcast"]["replication_ready"] is False


def test_refusal_of_a_private_only_project_names_the_setting() -> None:
    reason = "PrivateOnly: This project only allows private channels"
    refused = frame("phx_reply", {"status": "error", "response": {"reason": reason}}, ref="1")
    assert joining().receive(refused, 0.0) == [Fail(f"join refused: {reason}. Set OUTBOX_REALTIME_PRIVATE=true")]


@pytest.mark.parametrize("event", ["postgres_changes", "broadcast"])
def test_change_is_a_hint(event: str) -> None:
    assert ready().receive(frame(event, {"data": {}}), 1.0) == [Hint()]


def test_refused_join_fails_with_the_servers_reason() -> None:
    refused = frame(
        "phx_reply", {"status": "error", "response": {"reason": "ConnectionRateLimitReached: slow"}}, ref="1"
    )
    assert joining().receive(refused, 0.0) == [Fail("join refused: ConnectionRateLimitReached: slow")]


@pytest.mark.parametrize("extension", ["system", "postgres_changes"])
def test_system_error_fails_with_its_message(extension: str) -> None:
    reported = frame(
        "system", {"message": "Token has expired 3 seconds ago", "status": "error", "extension": extension}
    )
    assert ready().receive(reported, 1.0) == [Fail("Token has expired 3 seconds ago")]


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_end_of_the_channel_fails(event: str) -> None:
    [failed] = ready().receive(frame(event, {}), 1.0)
    assert isinstance(failed, Fail)
    assert event in failed.reason


@pytest.mark.parametrize("event", ["phx_close", "phx_error", "postgres_changes", "system"])
def test_other_channels_do_not_concern_us(event: str) -> None:
    assert ready().receive(frame(event, {}, topic="realtime:other"), 1.0) == []


@pytest.mark.parametrize("text", ["", "hello", "[1,2]", '["1","1","realtime:outbox","system",{}]', "{}", b"\xff\x00"])
def test_an_answer_that_is_not_phoenix_is_an_error(text: str | bytes) -> None:
    [failed] = joining().receive(text, 0.0)
    assert isinstance(failed, Fail)
    assert "Phoenix" in failed.reason


def test_join_without_answer_fails_in_time() -> None:
    channel = joining()
    assert channel.next_s == 15.0
    assert channel.tick(14.9) == []
    [failed] = channel.tick(15.0)
    assert isinstance(failed, Fail)


def test_join_without_subscription_fails_in_time() -> None:
    channel = joining()
    channel.receive(JOINED, 10.0)
    sent(channel.tick(15.0))
    channel.receive(frame("phx_reply", {"status": "ok"}, topic="phoenix"), 15.1)
    [failed] = channel.tick(25.0)
    assert isinstance(failed, Fail)
    assert "Subscribed" in failed.reason


def test_heartbeat_is_sent_and_its_answer_expected() -> None:
    channel = ready()
    assert channel.next_s == 15.0
    [beat] = sent(channel.tick(15.0))
    assert (beat["topic"], beat["event"]) == ("phoenix", "heartbeat")
    assert channel.next_s == 20.0
    channel.receive(frame("phx_reply", {"status": "ok"}, topic="phoenix", ref=beat["ref"]), 15.2)
    assert channel.next_s == pytest.approx(30.2)


def test_heartbeat_without_answer_fails() -> None:
    channel = ready()
    channel.tick(15.0)
    channel.receive(frame("phx_reply", {"status": "ok"}, topic="phoenix", ref="99"), 16.0)
    [failed] = channel.tick(20.0)
    assert isinstance(failed, Fail)
    assert "heartbeat" in failed.reason


def test_token_is_refreshed_a_minute_before_it_expires() -> None:
    channel = joining(token=jwt(role="service_role", exp=UNIX_S + 70))
    channel.receive(JOINED, 0.0)
    channel.receive(SUBSCRIBED, 0.0)
    assert channel.tick(9.0) == []
    while (actions := channel.tick(channel.next_s)) != [Refresh()]:
        for beat in sent(actions):
            channel.receive(frame("phx_reply", {}, topic="phoenix", ref=beat["ref"]), channel.next_s)
    fresh = json.loads(channel.refresh(jwt(exp=UNIX_S + 10_000), 35.0, UNIX_S + 35).frame)
    assert (fresh["event"], fresh["join_ref"]) == ("access_token", "1")
    assert channel.next_s < 60


def test_token_that_stays_expired_does_not_spin() -> None:
    channel = joining(token=jwt(exp=UNIX_S - 5))
    assert channel.next_s == 1.0


@pytest.mark.parametrize(
    ("token", "expires"),
    [
        ("sb_secret_x", None),
        ("a.b.c", None),
        ("", None),
        (jwt(role="x"), None),
        (jwt(exp=5), 5.0),
        (jwt(exp="x"), None),
    ],
)
def test_expiry_is_read_and_never_verified(token: str, expires: float | None) -> None:
    assert expiry(token) == expires


@given(st.lists(st.text() | st.binary() | st.just(JOINED) | st.just(SUBSCRIBED), max_size=20), st.floats(0, 100))
def test_no_frame_and_no_silence_breaks_the_channel(frames: list[str | bytes], now_s: float) -> None:
    channel = joining()
    for text in frames:
        channel.receive(text, now_s)
        channel.tick(now_s)
    assert channel.next_s > 0


JsonValues = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["phx_reply", "system", "phx_close", "postgres_changes", "x"]),
    JsonValues,
    st.sampled_from(["1", None]),
)
def test_no_payload_breaks_the_channel(event: str, payload: object, ref: str | None) -> None:
    joining().receive(frame(event, payload, ref=ref), 1.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ref.supabase.co", "wss://ref.supabase.co/realtime/v1/websocket?apikey=k%26y&vsn=1.0.0"),
        ("https://ref.supabase.co/", "wss://ref.supabase.co/realtime/v1/websocket?apikey=k%26y&vsn=1.0.0"),
        ("http://t.localhost:4000/socket", "ws://t.localhost:4000/socket/websocket?apikey=k%26y&vsn=1.0.0"),
        ("ws://t.localhost:4000/socket/websocket", "ws://t.localhost:4000/socket/websocket?apikey=k%26y&vsn=1.0.0"),
    ],
)
def test_address_of_the_socket(url: str, expected: str) -> None:
    assert socket_url(url, "k&y") == expected
