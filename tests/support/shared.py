"""One Temporal dev server for all processes of a test run.

The run's main process starts it when a test first asks for it, and ends it when the run ends. The other processes get
its address over a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Listener
from threading import Thread

from outbox.model.errors import OutboxError
from outbox_temporal.servers.temporal import TemporalServer


@dataclass(frozen=True, slots=True)
class SharedServer:
    """A server that another process started."""

    address: str


class ServerHost:
    """Starts a server at the first request for its address, from any process, and stops it at its own end."""

    def __init__(self, start: Callable[[], AbstractContextManager[TemporalServer | SharedServer]]) -> None:
        self._start = start
        self._listener = Listener(family="AF_UNIX")
        self.socket = str(self._listener.address)
        self._thread = Thread(target=self._answer_all, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server, if it was started, and answer no more."""
        with Client(self.socket) as connection:
            connection.send(False)
        self._thread.join()

    def _answer_all(self) -> None:
        with self._listener, ExitStack() as running:
            server: TemporalServer | SharedServer | None = None
            while True:
                with (
                    self._listener.accept() as connection,
                    suppress(EOFError, BrokenPipeError),
                ):  # it has ended meanwhile
                    if not connection.recv():
                        return
                    try:
                        server = server or running.enter_context(self._start())
                        connection.send((server.address, None))
                    except OutboxError as fault:
                        connection.send((None, str(fault)))


def shared_server(socket: str) -> SharedServer:
    """The server behind this socket. Returns when it serves."""
    with Client(socket) as connection:
        connection.send(True)
        address, fault = connection.recv()
    if fault:
        raise OutboxError(fault)
    return SharedServer(address)
