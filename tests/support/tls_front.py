"""TLS in front of a server that speaks none: it lets in who has a certificate of the authority that it trusts now."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trustme


class TlsFront:
    """Listens on one port of 127.0.0.1, and forwards to an address."""

    def __init__(self, address: str, authority: trustme.CA) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._certificate = authority.issue_cert("localhost")
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0

    async def trust(self, clients: trustme.CA) -> None:
        """Let in clients of this authority only; connections that are open end."""
        await self.close()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        self._certificate.configure_cert(context)
        clients.configure_trust(context)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End the listener and all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            self._open.add(sink)
            pipe = asyncio.ensure_future(self._pipe(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        self._open.discard(sink)
        sink.transport.abort()


@asynccontextmanager
async def tls_front(address: str, authority: trustme.CA, clients: trustme.CA) -> AsyncIterator[TlsFront]:
    """A front for the block, with a certificate of `authority` for localhost."""
    front = TlsFront(address, authority)
    await front.trust(clients)
    try:
        yield front
    finally:
        await front.close()
