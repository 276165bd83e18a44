"""A door before a server: connections are refused until it is opened, as if the server were started then."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 1 << 16


class Door:
    """Forwards connections to one host and port. asyncio, because only its servers take a socket of ours."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # the port is ours, and nothing listens yet
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """host:port of this side."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def url(self, url: str) -> str:
        """The same URL, through the door."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.address}"))

    async def open(self) -> None:
        """Let connections through from now on."""
        self._server = await asyncio.start_server(self._pass, sock=self._socket)

    async def close(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)
        self._socket.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            back, on = await asyncio.open_connection(*self._there)
            try:
                await asyncio.gather(_pump(reader, on), _pump(back, writer))
            finally:
                on.transport.abort()
        except (OSError, asyncio.CancelledError):  # the server refuses, or the door is closed: the end of it
            pass
        finally:
            writer.transport.abort()
            self._passing.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Forward until one side ends, then end the other."""
    with suppress(ConnectionError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    with suppress(OSError, RuntimeError):
        sink.write_eof()


@asynccontextmanager
async def door(address: str) -> AsyncIterator[Door]:
    """A closed door before host:port for the block."""
    host, _, port = address.rpartition(":")
    made = Door(host, int(port))
    try:
        yield made
    finally:
        await made.close()
