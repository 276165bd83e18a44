"""A small HTTP server in threads of its own, so that somebody is there to say that the event loop stands still.

Python's own server does the protocol. What is added are bounds: so many connections at once, so long for each from
its first byte to its last, and one request on each.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message as Headers
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic
from typing import Any, ClassVar, NamedTuple

from outbox.errors import ConfigurationError

EVERYWHERE = "*"
_AT_ONCE = 16
"""Connections; one more is closed without a word. A kubelet, a Prometheus and a person need three."""
_READ_TIMEOUT_S = 2.0
_WHOLE_TIMEOUT_S = 12.0
_LOOK_EVERY_S = 0.5


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[Headers], Page]]
"""By path: what makes the page, given the request's headers. Called in any thread, several at once; must be bounded."""


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
    """Pass over a kernel that knows IPv6 and has no address of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise


class Server(ThreadingHTTPServer):
    """Serves pages on a listening socket, which it owns from now on, until `close`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        # Its own way to bind would ask the name service for this host's name, for as long as that takes.
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.pages = pages
        self._since_s: dict[socket.socket, float] = {}
        """When each open connection came."""
        self._thread = Thread(target=self.serve_forever, args=(_LOOK_EVERY_S,), name="outbox http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve nobody any more. Takes half a second at most; answers that are being written are cut off."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._since_s):
            self._cut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Serve a connection in a thread of its own, if there are not too many."""
        if len(self._since_s) >= _AT_ONCE:
            self.shutdown_request(request)
            return
        self._since_s[request] = monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as inherited
        """End a connection."""
        super().shutdown_request(request)
        self._since_s.pop(request, None)

    def service_actions(self) -> None:
        """Cut what has been open for too long; whoever reads or writes there wakes up."""
        for connection, since_s in list(self._since_s.items()):
            if monotonic() - since_s > _WHOLE_TIMEOUT_S:
                self._cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as inherited
        """Say nothing: what reaches here is a client that went away, or was cut off."""

    def _cut(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; HTTP/1.0, so that the connection ends with it."""

    server: Server
    timeout: ClassVar[float] = _READ_TIMEOUT_S
    server_version, sys_version = "outbox", ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(explain)s\n"

    def do_GET(self) -> None:
        """Answer with the page of the path."""
        make = self.server.pages.get(self.path.partition("?")[0])
        if make is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"there are {' '.join(self.server.pages)}")
            return
        try:
            page = make(self.headers)
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
