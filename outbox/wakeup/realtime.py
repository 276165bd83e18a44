"""Rings the doorbell on what Supabase Realtime reports, under a supervision of its own.

Realtime promises nothing: it skips changes beyond its rate limits, a stopped replication leaves healthy channels deaf,
and row-level security mutes it without a word. So every socket is pinged, every silence has a deadline, and the
relay looks at the database after each subscription. If a poll finds messages that it did not announce, it is not
trusted any more (`outbox.wakeup`), and starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit, urlunsplit

import anyio

from outbox.loops.backoff import Backoff
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.model.events import Emit
from outbox.wakeup.phoenix import Action, Channel, Fail, Hint, Ready, Refresh, Send, Via
from outbox.wakeup.source import SupervisedSource

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from outbox.wakeup.doorbell import Wakeup
    from outbox.wakeup.token import Token

NAME = "realtime"
_OPEN_TIMEOUT_S = 10.0
_PING_EVERY_S = 3.0
_PING_TIMEOUT_S = 1.8
"""With the ping's period this bounds the time to notice a dead socket: under five seconds."""
_LARGEST_FRAME = 4 * 1024 * 1024
_RETRY = Backoff(base_s=0.5, cap_s=30.0)
_LIMITED_RETRY = Backoff(base_s=10.0, cap_s=60.0)
"""After a refusal that names a limit: trying harder makes it worse."""
_DEAF_RESTART_S = 30.0
"""How often an untrusted channel is replaced."""


@dataclass(frozen=True, slots=True)
class RealtimeSettings:
    """Where Realtime is, and how it reports."""

    url: str
    """SUPABASE_URL: the project's address, or the websocket's own with its path."""
    key: Callable[[], str] | str = field(repr=False)
    """The project's key, or a function that reads it for each connection."""
    via: Via
    schema: str
    private: bool = False
    """Whether to join a private channel for changes too, which some projects ask for."""

    @property
    def place(self) -> str:
        """Host and port for people, without the credentials that may be before them."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def current_key(self) -> str:
        """The key. Raises ConfigurationError where it cannot be read."""
        return self.key if isinstance(self.key, str) else self.key()


class _Broken(OutboxError):
    """The channel or its socket is of no use; the text says why."""


class RealtimeSource(SupervisedSource):
    """One channel on one socket, replaced for ever."""

    name, grace_s, steady_s = NAME, 3.0, 30.0
    # A hint usually comes within half a second: the server reads its replication slot ten times a second, or twice.

    def __init__(self, settings: RealtimeSettings, token: Token, wakeup: Wakeup, emit: Emit) -> None:
        super().__init__(wakeup, emit)
        self._settings = settings
        self._token = token
        self._deaf_since_s: float | None = None

    def _pace(self, error: OutboxError) -> Backoff:
        limited = any(word in str(error) for word in ("RateLimit", "429", "Too many"))
        return _LIMITED_RETRY if limited else _RETRY

    async def _session(self) -> None:
        token = await self._read_token()
        socket = await self._open()
        try:
            await self._converse(socket, token)
        finally:
            socket.transport.abort()

    async def _converse(self, socket: ClientConnection, token: str) -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - an extra, which is needed from here on

        channel = Channel(self._settings.via, self._settings.schema, private=self._settings.private)
        actions = channel.join(token, monotonic(), time.time())
        try:
            while True:
                for action in actions:
                    await self._act(socket, channel, action)
                self._check_trust()
                actions = await self._next_actions(socket, channel)
        except ConnectionClosed as error:
            raise _Broken(f"the socket was closed: {error}") from error

    async def _act(self, socket: ClientConnection, channel: Channel, action: Action) -> None:
        match action:
            case Send(frame):
                await socket.send(frame)
            case Ready():
                self._ready()
            case Hint():
                self._wakeup.ring(NAME)
            case Refresh():
                token = await self._read_token()
                await socket.send(channel.refresh(token, monotonic(), time.time()).frame)
            case Fail(reason):
                raise _Broken(reason)

    def _check_trust(self) -> None:
        """A channel that looks healthy and has missed messages gets some time to recover, and is then replaced."""
        if self._wakeup.trusts(NAME) or not self._wakeup.has(NAME):
            self._deaf_since_s = None
        elif self._deaf_since_s is None:
            self._deaf_since_s = monotonic()
        elif monotonic() - self._deaf_since_s > _DEAF_RESTART_S:
            self._deaf_since_s = None
            raise _Broken("connected, but messages arrived without a hint: run `outbox doctor`")

    async def _next_actions(self, socket: ClientConnection, channel: Channel) -> list[Action]:
        """What the next frame asks for, or the next deadline."""
        with anyio.move_on_after(min(max(0.0, channel.next_s - monotonic()), _DEAF_RESTART_S)):
            return channel.receive(await socket.recv(), monotonic())
        return channel.tick(monotonic())

    async def _read_token(self) -> str:
        try:
            return await self._token.read()
        except ConfigurationError as error:
            raise _Broken(str(error)) from error

    async def _open(self) -> ClientConnection:
        from websockets.asyncio.client import connect  # noqa: PLC0415 - an extra
        from websockets.exceptions import InvalidStatus, WebSocketException  # noqa: PLC0415

        try:
            return await connect(
                socket_url(self._settings.url, self._settings.current_key()),
                open_timeout=_OPEN_TIMEOUT_S,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PING_TIMEOUT_S,
                close_timeout=1.0,
                max_size=_LARGEST_FRAME,
            )
        except ConfigurationError as error:
            raise _Broken(str(error)) from error
        except InvalidStatus as error:
            body = bytes(error.response.body or b"")[:200].decode("utf-8", "replace")
            raise _Broken(f"the server refused the connection with HTTP {error.response.status_code} {body}") from error
        except TimeoutError as error:
            raise _Broken(f"{self._settings.place} opened no websocket in time") from error
        except (OSError, WebSocketException) as error:
            raise _Broken(f"cannot reach {self._settings.place}: {error}") from error


def socket_url(url: str, key: str) -> str:
    """The websocket's address for a Supabase URL. One with a path of its own is the socket's already (self-hosted)."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/") or "/realtime/v1"
    if not path.endswith("/websocket"):
        path += "/websocket"
    return urlunsplit((scheme, parts.netloc, path, urlencode({"apikey": key, "vsn": "1.0.0"}), ""))
