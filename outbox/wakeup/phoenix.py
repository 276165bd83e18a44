"""Supabase Realtime's protocol, Phoenix channels in their version 1.0.0, for one channel. No I/O and no clock.

Everything that the server says, and everything that it fails to say in time, comes out as an action for
`outbox.wakeup.realtime`. The protocol: supabase.com/docs/guides/realtime/protocol, and the server's source.

A join is answered before anything is reported. For changes the system frame "Subscribed to PostgreSQL" says that they
will be; for broadcasts "Replication connection established" does, because the join asks for it (`replication_ready`).
Every further frame of these means that the server subscribed again, and may have missed something in between.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Via = Literal["postgres_changes", "broadcast"]

_JOIN_TIMEOUT_S = 15.0
"""The server waits five seconds before it reports a refused join."""
_READY_TIMEOUT_S = 15.0
_REPLICATION_TIMEOUT_S = 65.0
"""The server itself gives up after a minute and says so. One without `replication_ready` says nothing: then the
channel counts as ready, and what polls find judges it."""
_REPLICATING = "Replication connection established"
_HEARTBEAT_S = 15.0
"""The server closes a socket that was silent for a minute."""
_HEARTBEAT_TIMEOUT_S = 5.0
_REFRESH_AHEAD_S = 60.0
_JOIN_REF = "1"


@dataclass(frozen=True, slots=True)
class Send:
    """Write this frame."""

    frame: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The subscription exists, for the first time or again: look at the database now."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Something was committed."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """The access token expires soon: call `refresh` with a new one."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The channel is of no use any more. `reason` is the server's where it gave one."""

    reason: str


Action = Send | Ready | Hint | Refresh | Fail


class Channel:
    """One channel on one socket. Every time is in seconds of the caller's monotonic clock."""

    def __init__(self, via: Via, schema: str, *, private: bool = False) -> None:
        """`private`: join a private channel for changes too. The one of broadcasts always is."""
        self._via = via
        self._private = private or via == "broadcast"
        self._schema = schema
        self._topic = f"realtime:{schema}"
        self._ref = 0
        self._state: Literal["joining", "joined", "ready"] = "joining"
        self._due_s = float("inf")
        """When the join or the subscription must have succeeded."""
        self._beat_s = float("inf")
        self._beat_ref: str | None = None
        """The heartbeat that is not answered yet."""
        self._refresh_s = float("inf")

    def join(self, token: str, now_s: float, unix_s: float) -> list[Action]:
        """Begin."""
        config: dict[str, Any] = {
            "broadcast": {"ack": False, "self": False, "replication_ready": self._via == "broadcast"},
            "presence": {"key": "", "enabled": False},
            "private": self._private,
        }
        if self._via == "postgres_changes":
            config["postgres_changes"] = [{"event": "INSERT", "schema": self._schema, "table": "message"}]
        self._due_s = now_s + _JOIN_TIMEOUT_S
        self._beat_s = now_s + _HEARTBEAT_S
        self._plan_refresh(token, now_s, unix_s)
        return [self._frame(self._topic, "phx_join", {"config": config, "access_token": token})]

    def refresh(self, token: str, now_s: float, unix_s: float) -> Send:
        """Go on with another access token."""
        self._plan_refresh(token, now_s, unix_s)
        return self._frame(self._topic, "access_token", {"access_token": token})

    @property
    def next_s(self) -> float:
        """When `tick` has something to do, unless a frame comes before."""
        return min(self._due_s, self._beat_s, self._refresh_s)

    def tick(self, now_s: float) -> list[Action]:
        """Do what has fallen due."""
        if now_s >= self._due_s:
            return [self._overdue()]
        if now_s >= self._refresh_s:
            self._refresh_s = float("inf")
            return [Refresh()]
        if now_s >= self._beat_s:
            if self._beat_ref is not None:
                return [Fail(f"the server answered no heartbeat for {_HEARTBEAT_TIMEOUT_S:g} s")]
            self._beat_s = now_s + _HEARTBEAT_TIMEOUT_S
            beat = self._frame("phoenix", "heartbeat", {}, joined=False)
            self._beat_ref = str(self._ref)
            return [beat]
        return []

    def _overdue(self) -> Ready | Fail:
        """What it means that the join, or the subscription, was not answered in time."""
        if self._state == "joined" and self._via == "broadcast":
            return self._subscribed()
        what = "the join" if self._state == "joining" else 'with "Subscribed to PostgreSQL"'
        return Fail(f"the server did not answer {what} in time")

    def _subscribed(self) -> Ready:
        self._state, self._due_s = "ready", float("inf")
        return Ready()

    def receive(self, text: str | bytes, now_s: float) -> list[Action]:
        """Take in one frame."""
        try:
            frame = orjson.loads(text)
            topic, event, payload = frame["topic"], frame["event"], frame["payload"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return [Fail("the server does not speak Phoenix 1.0.0: is this address Supabase Realtime's?")]
        if not isinstance(payload, dict):
            payload = {}
        if topic == "phoenix":
            return self._answered(frame.get("ref"), now_s)
        if topic != self._topic:
            return []
        match event:
            case "phx_reply" if frame.get("ref") == _JOIN_REF:
                return self._joined(payload, now_s)
            case "system":
                return self._system(payload)
            case "postgres_changes" | "broadcast":
                return [Hint()]
            case "phx_close" | "phx_error":
                return [Fail(f"the server ended the channel ({event})")]
            case _:
                return []

    def _answered(self, ref: object, now_s: float) -> list[Action]:
        """A heartbeat's answer. Some servers leave its ref out."""
        if self._beat_ref is not None and ref in (None, self._beat_ref):
            self._beat_ref = None
            self._beat_s = now_s + _HEARTBEAT_S
        return []

    def _joined(self, payload: dict[str, Any], now_s: float) -> list[Action]:
        if payload.get("status") != "ok":
            response = payload.get("response")
            reason = response.get("reason", response) if isinstance(response, dict) else response
            cure = ". Set OUTBOX_REALTIME_PRIVATE=true" if "PrivateOnly" in str(reason) else ""
            return [Fail(f"join refused: {reason}{cure}")]
        wait_s = _REPLICATION_TIMEOUT_S if self._via == "broadcast" else _READY_TIMEOUT_S
        self._state, self._due_s = "joined", now_s + wait_s
        return []

    def _system(self, payload: dict[str, Any]) -> list[Action]:
        """A system frame: about the subscription, or the reason why the channel will be closed."""
        message = str(payload.get("message", ""))
        if payload.get("status") != "ok":
            return [Fail(message)]
        if self._via == "broadcast":
            return [self._subscribed()] if message == _REPLICATING else []
        return [self._subscribed()] if payload.get("extension") == "postgres_changes" else []

    def _plan_refresh(self, token: str, now_s: float, unix_s: float) -> None:
        expires = expiry(token)
        left_s = float("inf") if expires is None else expires - unix_s
        self._refresh_s = now_s + max(left_s - _REFRESH_AHEAD_S, left_s / 2, 1.0)

    def _frame(self, topic: str, event: str, payload: dict[str, Any], *, joined: bool = True) -> Send:
        self._ref += 1
        frame = {
            "topic": topic,
            "event": event,
            "payload": payload,
            "ref": str(self._ref),
            "join_ref": _JOIN_REF if joined else None,
        }
        return Send(orjson.dumps(frame).decode())


def expiry(token: str) -> float | None:
    """When a JWT expires, in Unix seconds; None for what is no JWT or never expires."""
    expires = claim(token, "exp")
    return float(expires) if isinstance(expires, int | float) else None


def claim(token: str, name: str) -> object:
    """A claim of a JWT; None for what is no JWT or does not make it. Nothing is verified."""
    try:
        body = token.split(".")[1]
        return orjson.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))[name]
    except (IndexError, KeyError, TypeError, ValueError, Base64Error):
        return None
