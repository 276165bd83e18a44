"""A TCP proxy. A test can break its link in every way in which links break."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time at all: what closes then says RST; without it, FIN, as after a proper goodbye."""


class TcpProxy:
    """Forwards connections to one target. asyncio, because aborting a connection is a matter of its transport."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        """Where new connections lead."""
        self.host, self.port = "127.0.0.1", 0
        self.accepted = 0
        self.sent = 0
        """Bytes forwarded to the target so far."""
        self.received = 0
        """Bytes forwarded from the target so far."""
        self._open: set[asyncio.Transport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._bytes_per_s = 0.0
        self._free_s = 0.0
        """When the limited link has forwarded what was given to it, on the loop's clock."""

    @property
    def bytes(self) -> int:
        """Bytes forwarded so far, both ways together."""
        return self.sent + self.received

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._tasks)

    def url(self, original: str) -> str:
        """The same URL, led through this proxy."""
        parts = urlsplit(original)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(
            parts._replace(netloc=f"{user}@{self.host}:{self.port}" if user else f"{self.host}:{self.port}")
        )

    def stall(self) -> None:
        """Forward nothing any more, in silence: a black hole, for open connections and new ones."""
        self._flowing.clear()

    def limit(self, bytes_per_s: float) -> None:
        """Forward no more from the target than this, over all connections together."""
        self._bytes_per_s = bytes_per_s

    def half_open(self) -> None:
        """Forward nothing any more over the connections that are open now, in silence. New ones work."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def flow(self) -> None:
        """Forward again, first of all what was held up by `stall`."""
        self._flowing.set()

    def retarget(self, host: str, port: int) -> None:
        """Lead new connections elsewhere."""
        self.target = (host, port)

    def cut(self) -> None:
        """Reset every open connection at once, and forget what was held up for it."""
        for transport in list(self._open):
            if not transport.is_closing():  # what is closing may have no socket any more
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            transport.abort()
        for task in list(self._tasks):
            task.cancel()

    async def refuse(self) -> None:
        """Refuse new connections, and cut the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def accept(self) -> None:
        """Take connections, at the same address as ever."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End everything."""
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            self._open.add(writer.transport)
            flowing = self._flowing
            await flowing.wait()
            if writer.is_closing():
                return  # reset in the meantime: the target never hears of it
            there, out = await asyncio.open_connection(*self.target)
            ends.append(out)
            self._open.add(out.transport)
            # The first direction to end takes the other with it: half-closed connections are not needed here.
            pumps = [
                asyncio.ensure_future(self._pump(reader, out, "sent", flowing)),
                asyncio.ensure_future(self._pump(there, writer, "received", flowing)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the target is not there: the client sees its connection end
        except asyncio.CancelledError:
            pass  # ours alone: asyncio's server would report it as an error in its callback
        finally:
            for end in ends:
                self._open.discard(end.transport)
                end.transport.abort()
            self._tasks.discard(task)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Literal["sent", "received"],
        flowing: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await flowing.wait()
                if self._bytes_per_s and count == "received":
                    now_s = asyncio.get_running_loop().time()
                    self._free_s = max(self._free_s, now_s) + len(data) / self._bytes_per_s
                    await asyncio.sleep(self._free_s - now_s)
                writer.write(data)
                setattr(self, count, getattr(self, count) + len(data))
                await writer.drain()


@asynccontextmanager
async def tcp_proxy(url: str) -> AsyncIterator[TcpProxy]:
    """A proxy before the host and port of a URL, accepting."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = TcpProxy(parts.hostname, parts.port)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()
