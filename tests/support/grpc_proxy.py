"""A proxy before a real Temporal server that knows calls: it can lose an answer, refuse a call or answer as proxies do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message as ProtobufMessage
from hpack import Encoder
from temporalio.api.workflowservice import v1
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from outbox_bench.temporal_stub.grpc_server import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Connection,
    GrpcRefusal,
    Reply,
    _message,
    frame,
)

UNAVAILABLE, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 14, 7, 8
_HEALTHY = b"\x08\x01"
"""The serialized answer of a server that serves."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Forward the call and answer with an error instead of what the server said."""

    code: int = UNAVAILABLE


@dataclass(frozen=True, slots=True)
class HttpStatus:
    """Do not forward the call; answer with a page, or with headers only."""

    status: int
    body: bytes = b"<html>no</html>"


Answer = Lost | GrpcRefusal | HttpStatus | None
"""What to do with a call; None: forward it and its answer."""
Script = Callable[[str, ProtobufMessage | None], Answer]
"""Decides about a call, given its method's name and its request."""


class GrpcProxy:
    """`script` may be replaced at any time. `calls` are the names of the methods that were called."""

    def __init__(self, upstream: ServiceClient) -> None:
        self.script: Script = lambda _name, _request: None
        self.calls: list[str] = []
        self.port = 0
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.BaseTransport] = set()

    @property
    def address(self) -> str:
        """host:port, for TEMPORAL_ADDRESS."""
        return f"127.0.0.1:{self.port}"

    def lose(self, count: int, *methods: str) -> None:
        """Lose the next answers of these methods, so many for each workflow id; forward everything else."""
        left: dict[str, int] = {}

        def script(name: str, request: Any) -> Answer:
            if name not in methods:
                return None
            workflow_id = getattr(request, "workflow_id", "") or request.workflow_execution.workflow_id
            left[workflow_id] = left.get(workflow_id, count) - 1
            return Lost() if left[workflow_id] >= 0 else None

        self.script = script

    async def answer(self, path: str, body: bytes) -> bytes | GrpcRefusal | HttpStatus:
        """Answer one call."""
        name = path.rpartition("/")[2]
        request = getattr(v1, f"{name}Request").FromString(body) if "WorkflowService" in path else None
        self.calls.append(name)
        chosen = self.script(name, request)
        if isinstance(chosen, GrpcRefusal | HttpStatus):
            return chosen
        answer = await self._forwarded(name, request)
        return GrpcRefusal(chosen.code, "the proxy lost the answer") if isinstance(chosen, Lost) else answer

    async def _forwarded(self, name: str, request: ProtobufMessage | None) -> bytes | GrpcRefusal:
        if request is None:
            return _HEALTHY
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        try:
            call: Callable[..., Awaitable[Any]] = getattr(self._upstream.workflow_service, method)
            return bytes((await call(request, retry=False)).SerializeToString())
        except RPCError as error:
            return GrpcRefusal(error.status.value, error.message, error.raw_grpc_status)

    def connect(self) -> Connection:
        """A new connection's protocol."""
        return _Connection(self)

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Note a connection that is to be closed with the proxy."""
        self._open.add(transport)

    def begin(self, work: Awaitable[None]) -> None:
        """Run something until the proxy is closed."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is still running or open."""
        for transport in self._open:
            transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next turn


class _Connection(Connection):
    def __init__(self, proxy: GrpcProxy) -> None:
        super().__init__(lambda _path, _body: Reply(b""))
        self._proxy = proxy
        self._encoder = Encoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.opened(transport)

    def _answer(self, stream: int) -> None:
        call = self._calls[stream]
        self._proxy.begin(self._answer_later(stream, call.path.decode(), _message(call.body)))

    async def _answer_later(self, stream: int, path: str, body: bytes) -> None:
        answer = await self._proxy.answer(path, body)
        if not isinstance(answer, HttpStatus):
            self._send_late(stream, answer)
        elif self._calls.pop(stream, None) is not None:
            headers = [(":status", str(answer.status)), ("content-type", "text/html")]
            ends = 0 if answer.body else END_STREAM
            self._out.append(frame(HEADERS, END_HEADERS | ends, stream, self._encoder.encode(headers)))
            if answer.body:
                self._out.append(frame(DATA, END_STREAM, stream, answer.body))
            self._flush()


@asynccontextmanager
async def proxying(address: str) -> AsyncIterator[GrpcProxy]:
    """A proxy before the server at `address`."""
    proxy = GrpcProxy(await ServiceClient.connect(ConnectConfig(target_host=address)))
    server = await asyncio.get_running_loop().create_server(proxy.connect, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
