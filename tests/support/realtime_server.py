"""A server that speaks Supabase Realtime's protocol, fed by a real replication slot at Realtime's cadence.

For tests only, and written from the protocol's documentation: a real Realtime server runs on another platform. What a
test asserts against this one holds for Supabase as far as this one resembles it; `tests/worker/realtime` has Supabase's own
clients for Python and JavaScript subscribe to it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg
from anyio.abc import TaskGroup
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.pgoutput import Decoder, Insert

SECRET = "a-secret-of-the-tests-that-is-long-enough"
POLL_S = 0.1
PUBLICATION = "supabase_realtime"
SUPABASE = """
create publication supabase_realtime;
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
"""
"""What a Supabase database has and our embedded one has not. The roles belong to the server: see `prepare`."""
BROADCAST = """
create schema realtime;
create table realtime.messages (
    id uuid default gen_random_uuid(), topic text not null, extension text not null, event text, payload jsonb,
    private boolean default false, inserted_at timestamp not null default now(), primary key (id, inserted_at)
) partition by range (inserted_at);
create table realtime.messages_now partition of realtime.messages for values from ('2000-01-01') to ('2200-01-01');
grant usage on schema realtime to public;
grant select, insert on realtime.messages to public;
create function realtime.topic() returns text language sql stable as $$select current_setting('realtime.topic', true)$$;
create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql as $$
begin
    insert into realtime.messages (topic, extension, event, payload, private)
    values (send.topic, 'broadcast', send.event, send.payload, send.private);
exception when others then
    raise warning 'not sent: %', sqlerrm;
end
$$;
alter publication supabase_realtime add table realtime.messages;
"""
"""As Supabase's: partitioned by time, and a function that never raises an error."""


def jwt(role: str, *, expires_in_s: float = 86_400.0, secret: str = SECRET) -> str:
    """A token as Supabase issues them."""
    claims = {"role": role, "exp": int(time.time() + expires_in_s), "iss": "supabase"}
    body = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{body}.{_base64(_signature(body, secret))}"


def _claims(token: str, secret: str) -> dict[str, Any] | None:
    """The claims of a token that was signed with this secret."""
    body, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature, _base64(_signature(body, secret))):
        return None
    part = body.partition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(claims, dict)
    return claims


def _signature(body: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def prepare(dsn: str, *tables: str, broadcast: bool = False) -> None:
    """Make a database look like Supabase's, with these tables published."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        for statement in SUPABASE.strip().splitlines():
            with suppress(asyncpg.DuplicateObjectError):
                await connection.execute(statement)
        for table in tables:
            await connection.execute(f"alter publication {PUBLICATION} add table {table}")
        if broadcast:
            await connection.execute(BROADCAST)
    finally:
        await connection.close(timeout=10)


class _RolledBack(Exception):  # noqa: N818 - it ends a transaction, and is no error
    """Carries an answer out of a transaction that leaves nothing behind."""

    def __init__(self, seen: bool) -> None:
        self.seen = seen


@dataclass(eq=False)
class Channel:
    """One client's membership in one topic."""

    topic: str
    join_ref: str | None
    role: str
    expires: float
    bindings: list[dict[str, Any]]
    private: bool
    subscribed: bool = False


@dataclass(eq=False)
class Client:
    """One socket."""

    socket: ServerConnection
    arrays: bool
    """Whether it speaks version 2.0.0, with frames that are arrays."""
    channels: dict[str, Channel] = field(default_factory=dict)

    async def send(
        self, topic: str, event: str, payload: object, *, ref: str | None = None, join_ref: str | None = None
    ) -> None:
        named = {"topic": topic, "event": event, "payload": payload, "ref": ref}
        frame = [join_ref, ref, topic, event, payload] if self.arrays else named
        with suppress(ConnectionClosed):
            await self.socket.send(json.dumps(frame))


class RealtimeServer:
    """The server and its faults. A fault holds until the test takes it back."""

    def __init__(self, dsn: str, tasks: TaskGroup) -> None:
        self._dsn = dsn
        self._tasks = tasks
        self._server: Server | None = None
        self._port = 0
        self.clients: set[Client] = set()
        self.replicating = anyio.Event()
        """Set once the slot exists."""
        self.refuse_handshake: int | None = None
        """HTTP status with which every handshake is refused."""
        self.refuse_join: str | None = None
        """Reason with which every join is refused."""
        self.private_only = False
        """Whether the project takes private channels only."""
        self.knows_replication_ready = True
        """Whether it says when its replication stands. Older servers never do."""
        self.refusal_delay_s = 0.05
        """How long it waits before it refuses a join; Realtime waits for five seconds."""
        self.answer_heartbeats = True
        self.read: set[str] = set()
        """Ids of the messages with rows that it has read, and reported to the clients that may see them."""
        self.deaf = False
        """Healthy in everything, and reporting nothing: a stopped replication, exceeded limits."""
        self.subscribe_delay_s = 0.05
        """From the answer to a join until the subscription exists."""

    @property
    def url(self) -> str:
        """What a client is given; it appends /websocket itself."""
        return f"http://127.0.0.1:{self._port}/realtime/v1"

    async def start(self) -> None:
        """Listen, at the same port as ever."""
        self._server = await serve(
            self._serve, "127.0.0.1", self._port, process_request=self._greet, ping_interval=None, close_timeout=0.2
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def has_subscribed(self) -> bool:
        """Whether a channel gets what is committed from now on."""
        return any(channel.subscribed for client in self.clients for channel in client.channels.values())

    async def stop(self) -> None:
        """Close every socket with 1012, as a server that restarts does, and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for client in list(self.clients):
                await client.socket.close(1012)
            await server.wait_closed()

    async def drop(self) -> None:
        """Abort every socket."""
        for client in list(self.clients):
            client.socket.transport.abort()

    async def end_channels(self, event: str = "phx_close", *, reason: str | None = None) -> None:
        """End every channel and leave its socket open; with a reason, send it first."""
        for client in self.clients:
            for channel in list(client.channels.values()):
                if reason is not None:
                    await self._system(client, channel, reason, status="error", extension="system")
                await client.send(channel.topic, event, {}, ref=channel.join_ref, join_ref=channel.join_ref)
                del client.channels[channel.topic]

    async def subscribe_again(self) -> None:
        """Send every channel once more that it was subscribed."""
        for client in self.clients:
            for channel in client.channels.values():
                await self._system(client, channel, "Subscribed to PostgreSQL")

    async def fail_subscriptions(self) -> None:
        """Send every channel that its parameters make no subscription."""
        for client in self.clients:
            for channel in client.channels.values():
                text = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled"
                await self._system(client, channel, text, status="error")

    async def replicate(self) -> None:
        """Read the slot for ever, and pass on what each channel may see."""
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._replicate_once()
            await anyio.sleep(0.2)  # a temporary slot is gone with its connection: what came in the meantime is lost

    async def _replicate_once(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            slot = f"realtime_{time.monotonic_ns()}"
            await connection.execute(f"select pg_create_logical_replication_slot('{slot}', 'pgoutput', true)")
            decoder = Decoder()
            self.replicating.set()
            while True:
                rows = await connection.fetch(
                    "select data from pg_logical_slot_get_binary_changes($1, null, 100, 'proto_version', '1', "
                    "'publication_names', $2)",
                    slot,
                    PUBLICATION,
                )
                for row in rows:
                    for insert in decoder.decode(row[0]):
                        await self._report(connection, insert)
                        self.read.add(insert.row.get("message_id") or "")
                await anyio.sleep(POLL_S)
        finally:
            connection.terminate()

    async def _report(self, connection: asyncpg.Connection[asyncpg.Record], insert: Insert) -> None:
        if self.deaf:
            return
        for client in list(self.clients):
            for channel in list(client.channels.values()):
                if not channel.subscribed:
                    continue
                if insert.relation.schema == "realtime":
                    await self._report_broadcast(client, channel, insert)
                else:
                    await self._report_change(connection, client, channel, insert)

    async def _report_broadcast(self, client: Client, channel: Channel, insert: Insert) -> None:
        row = insert.row
        if channel.topic == f"realtime:{row['topic']}" and channel.private == (row["private"] == "t"):
            payload = {"event": row["event"], "type": "broadcast", "payload": json.loads(row["payload"] or "{}")}
            await client.send(channel.topic, "broadcast", payload, join_ref=channel.join_ref)

    async def _report_change(
        self, connection: asyncpg.Connection[asyncpg.Record], client: Client, channel: Channel, insert: Insert
    ) -> None:
        relation = insert.relation
        ids = [
            binding["id"]
            for binding in channel.bindings
            if binding["event"] in ("*", "INSERT")
            and binding["schema"] == relation.schema
            and binding.get("table", "*") in ("*", relation.table)
        ]
        if not ids or not await self._may_see(connection, channel.role, insert):
            return
        data = {
            "schema": relation.schema,
            "table": relation.table,
            "type": "INSERT",
            "commit_timestamp": "2026-01-01T00:00:00.000Z",
            "columns": [{"name": name, "type": "text"} for name in relation.columns],
            "record": insert.row,
            "errors": None,
        }
        await client.send(channel.topic, "postgres_changes", {"ids": ids, "data": data}, join_ref=channel.join_ref)

    @staticmethod
    async def _may_see(connection: asyncpg.Connection[asyncpg.Record], role: str, insert: Insert) -> bool:
        """Ask the database, as this role, for the row's key: grants and row-level security decide."""
        relation = insert.relation
        key = " and ".join(f"{name}::text = ${n}" for n, name in enumerate(relation.key, 1))
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(f'set local role "{role}"')
            return bool(
                await connection.fetchval(
                    f"select exists (select from {relation.schema}.{relation.table} where {key})",
                    *(insert.row[name] for name in relation.key),
                )
            )
        except asyncpg.InsufficientPrivilegeError:
            return False
        finally:
            await transaction.rollback()

    def _greet(self, _connection: ServerConnection, request: Request) -> Response | None:
        """Refuse the handshake, or let it go on."""
        status = self.refuse_handshake
        if status is None:
            asked = parse_qs(urlsplit(request.path).query)
            key = request.headers.get("x-api-key") or asked.get("apikey", [""])[0]
            if not key:
                status = 401
            elif "." in key and _claims(key, SECRET) is None:
                status = 403
        if status is None:
            return None
        phrase = http.HTTPStatus(status).phrase
        return _connection.respond(http.HTTPStatus(status), json.dumps({"error": phrase}))

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        version = parse_qs(urlsplit(socket.request.path).query).get("vsn", ["1.0.0"])[0]
        client = Client(socket, arrays=version.startswith("2"))
        self.clients.add(client)
        try:
            async for text in socket:
                await self._hear(client, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.clients.discard(client)

    async def _hear(self, client: Client, frame: Any) -> None:
        if client.arrays:
            join_ref, ref, topic, event, payload = frame
        else:
            join_ref, ref, topic, event = (frame.get(name) for name in ("join_ref", "ref", "topic", "event"))
            payload = frame["payload"]
        if topic == "phoenix":
            if self.answer_heartbeats:
                await client.send(topic, "phx_reply", {"status": "ok", "response": {}}, ref=ref)
        elif event == "phx_join":
            await self._join(client, topic, payload, ref, join_ref)
        elif event == "phx_leave":
            client.channels.pop(topic, None)
            await client.send(topic, "phx_reply", {"status": "ok", "response": {}}, ref=ref, join_ref=join_ref)
        elif event == "access_token" and topic in client.channels:
            await self._take_token(client, client.channels[topic], payload.get("access_token"))

    async def _join(self, client: Client, topic: str, payload: Any, ref: str | None, join_ref: str | None) -> None:
        config = payload.get("config", {})
        claims = _claims(payload.get("access_token") or "", SECRET)
        refused = self.refuse_join
        if refused is None and self.private_only and not config.get("private"):
            refused = "PrivateOnly: This project only allows private channels"
        if refused is None and (claims is None or "role" not in claims or "exp" not in claims):
            refused = "InvalidJWTToken: Fields `role` and `exp` are required in JWT"
        elif refused is None and claims is not None and claims["exp"] <= time.time():
            refused = "InvalidJWTToken: Token has expired"
        elif refused is None and claims is not None and config.get("private"):
            refused = await self._why_not_private(claims["role"], topic.split(":", 1)[1])
        if refused is not None or claims is None:
            await anyio.sleep(self.refusal_delay_s)  # Realtime's own back-off
            answer = {"status": "error", "response": {"reason": refused}}
            await client.send(topic, "phx_reply", answer, ref=ref, join_ref=join_ref)
            return
        bindings = [
            {"id": abs(hash(json.dumps(change, sort_keys=True))) % 10**8, **change}
            for change in config.get("postgres_changes", [])
        ]
        channel = Channel(topic, join_ref, claims["role"], claims["exp"], bindings, bool(config.get("private")))
        client.channels[topic] = channel
        answer = {"status": "ok", "response": {"postgres_changes": bindings}}
        await client.send(topic, "phx_reply", answer, ref=ref, join_ref=join_ref)
        asks = bool((config.get("broadcast") or {}).get("replication_ready"))
        self._tasks.start_soon(self._subscribe, client, channel, asks)
        self._tasks.start_soon(self._expire, client, channel)

    async def _subscribe(self, client: Client, channel: Channel, asks_for_replication: bool) -> None:
        """The join was answered; the subscription takes its time."""
        await anyio.sleep(self.subscribe_delay_s)
        await self.replicating.wait()
        channel.subscribed = True
        if channel.bindings:
            await self._system(client, channel, "Subscribed to PostgreSQL")
        if asks_for_replication and self.knows_replication_ready:
            await self._system(client, channel, "Replication connection established", extension="system")

    async def _why_not_private(self, role: str, topic: str) -> str | None:
        """Ask the database, as this role, whether a policy on realtime.messages lets it read the topic."""
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            async with connection.transaction():
                await connection.execute(
                    "insert into realtime.messages (topic, extension) values ($1, 'broadcast')", topic
                )
                await connection.execute("select set_config('realtime.topic', $1, true)", topic)
                await connection.execute(f'set local role "{role}"')
                seen = await connection.fetchval(
                    "select exists (select from realtime.messages where topic = $1)", topic
                )
                raise _RolledBack(bool(seen))
        except _RolledBack as asked:
            return None if asked.seen else "Unauthorized: You do not have permissions to read from this Channel topic"
        except asyncpg.UndefinedTableError:
            return None  # a database without broadcasts: `prepare` was not asked for them
        finally:
            await connection.close(timeout=10)

    async def _expire(self, client: Client, channel: Channel) -> None:
        """End the channel when its token expires, and leave the socket open."""
        while client.channels.get(channel.topic) is channel and client in self.clients:
            if time.time() > channel.expires:
                await self._system(
                    client, channel, "Token has expired 0 seconds ago", status="error", extension="system"
                )
                await client.send(channel.topic, "phx_close", {}, ref=channel.join_ref, join_ref=channel.join_ref)
                client.channels.pop(channel.topic, None)
                return
            await anyio.sleep(POLL_S)

    async def _take_token(self, client: Client, channel: Channel, token: str | None) -> None:
        claims = _claims(token or "", SECRET)
        if claims is not None:
            channel.expires, channel.role = claims["exp"], claims["role"]
            await self._system(client, channel, "Subscribed to PostgreSQL")

    async def _system(
        self, client: Client, channel: Channel, message: str, *, status: str = "ok", extension: str = "postgres_changes"
    ) -> None:
        body = {"message": message, "status": status, "extension": extension, "channel": channel.topic.split(":", 1)[1]}
        await client.send(channel.topic, "system", body, join_ref=channel.join_ref)


@asynccontextmanager
async def realtime_server(dsn: str) -> AsyncIterator[RealtimeServer]:
    """A server for one database, which must have been prepared and have wal_level logical."""
    async with anyio.create_task_group() as tasks:
        server = RealtimeServer(dsn, tasks)
        await server.start()
        tasks.start_soon(server.replicate)
        try:
            yield server
        finally:
            await server.stop()
            tasks.cancel_scope.cancel()
