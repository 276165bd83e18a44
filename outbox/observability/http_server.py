"""A small HTTP server in threads of its own, so that it can report that the event loop is stuck.

Python's own server does the protocol. This adds bounds: on connections at once, and on the time for each request
and for each answer, and one request on each connection. A connection too many ends the oldest one that only sends or
reads slowly, so slow clients cannot keep a probe out.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message as Headers
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from time import monotonic
from typing import Any, ClassVar, NamedTuple

from outbox.model.errors import ConfigurationError

EVERYWHERE = "*"
_AT_ONCE = 32
"""Connections. A kubelet, a Prometheus and a person need three."""
_SLOW_AT_ONCE = 8
"""Answers that are made at once of pages that are not for probes. One more is 503."""
_REQUEST_WITHIN_S = 2.0
"""From the connection's begin to the request's last byte, however many bytes come in between."""
_WHOLE_TIMEOUT_S = 12.0
_LOOK_EVERY_S = 0.5


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[Headers], Page]]
"""By path: what makes the page, given the request's headers. Called in any thread, several at once; must be bounded."""


@dataclass(slots=True)
class _OpenConnection:
    """One open connection: when it came, and whether its page is being made, for which the client cannot be blamed."""

    since_s: float
    asked: bool = False
    making: bool = False


def listen(host: str, port: int) -> socket.socket:
    """Take a port. Raises ConfigurationError, which names the settings, when it cannot be had."""
    try:
        if host != EVERYWHERE:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if socket.has_dualstack_ipv6():
            with _ipv6_may_be_missing():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"health and metrics cannot be served at {host}:{port}: {reason[:1].lower()}{reason[1:]} "
            "(settings OUTBOX_HTTP_HOST, OUTBOX_HTTP_PORT; port 0 serves none)"
        ) from error


@contextmanager
def _ipv6_may_be_missing() -> Iterator[None]:
    """Skip IPv6 if the kernel supports it but has no address."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise


class HttpServer(ThreadingHTTPServer):
    """Serves pages on a listening socket, which it owns from now on, until `close`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, pages: Pages, *, probes: Collection[str] = ()) -> None:
        """`probes` are the paths that are always answered: no number of other requests keeps them waiting."""
        # Its own way to bind would ask the name service for this host's name, for as long as that takes.
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.pages = pages
        self._probes = probes
        self._slow = BoundedSemaphore(_SLOW_AT_ONCE)
        self._open_connections: dict[socket.socket, _OpenConnection] = {}
        """The open connections, the oldest first."""
        self._thread = Thread(target=self.serve_forever, args=(_LOOK_EVERY_S,), name="outbox http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no request any more. Takes half a second at most; answers that are being written are cut off."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._open_connections):
            self._cut(connection)

    def make(self, request: socket.socket, path: str, headers: Headers) -> Page:
        """Make the page of a path, which exists, for a connection; or say that too many are being made."""
        visit = self._open_connections.get(request) or _OpenConnection(monotonic())
        visit.asked = True
        if path in self._probes:
            return self._made(visit, path, headers)
        if not self._slow.acquire(blocking=False):
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", b"too many requests at once\n")
        try:
            return self._made(visit, path, headers)
        finally:
            self._slow.release()

    def _made(self, visit: _OpenConnection, path: str, headers: Headers) -> Page:
        visit.making = True
        try:
            return self.pages[path](headers)
        finally:
            visit.making = False

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Serve a connection in a thread of its own. If there are too many, end the oldest with a slow client."""
        if len(self._open_connections) >= _AT_ONCE:
            oldest = next((one for one, visit in list(self._open_connections.items()) if not visit.making), None)
            if oldest is None:
                self.shutdown_request(request)
                return
            self._cut(oldest)
        self._open_connections[request] = _OpenConnection(monotonic())
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as inherited
        """End a connection."""
        self._open_connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut what has been open for too long; a thread that reads or writes there wakes up."""
        for connection, visit in list(self._open_connections.items()):
            if monotonic() - visit.since_s > (_WHOLE_TIMEOUT_S if visit.asked else _REQUEST_WITHIN_S):
                self._cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Say nothing: what reaches here is a client that went away, or was cut off."""

    def _cut(self, connection: socket.socket) -> None:
        """Wake the thread that waits for this client; it ends the connection."""
        self._open_connections.pop(connection, None)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; HTTP/1.0, so that the connection ends with it."""

    server: HttpServer
    timeout: ClassVar[float] = _REQUEST_WITHIN_S
    server_version, sys_version = "outbox", ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(explain)s\n"

    def do_GET(self) -> None:
        """Answer with the page of the path."""
        path = self.path.partition("?")[0]
        if path not in self.server.pages:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"there are {' '.join(self.server.pages)}")
            return
        try:
            page = self.server.make(self.connection, path, self.headers)
        except Exception as error:  # noqa: BLE001 - a fault of ours must be an answer too
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=f"a fault of the worker: {type(error).__name__}")
            return
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def log_message(self, *_: object) -> None:
        """Log nothing: a probe comes every few seconds."""
