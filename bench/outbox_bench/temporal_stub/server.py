"""The stand-in for Temporal's frontend as a server that benchmarks and tests start and stop."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Self

from outbox_bench.temporal_stub.frontend import FrontendOptions
from outbox_temporal.servers.process import EmbeddedServer


class StubFrontend(EmbeddedServer):
    """`temporal_stub.frontend` in a process of its own. It keeps nothing: a restart forgets all workflows."""

    title, stop_signal, death_signal = "stub frontend", signal.SIGTERM, signal.SIGKILL

    def __init__(self, options: FrontendOptions) -> None:
        super().__init__(None)
        self.options = options

    @classmethod
    def start(cls, options: FrontendOptions | None = None) -> Self:
        """Start on a free port of this machine."""
        return cls(options or FrontendOptions())._begin()

    @property
    def address(self) -> str:
        """host:port, for TEMPORAL_ADDRESS."""
        return f"127.0.0.1:{self._ports[0]}"

    def _prepare(self) -> None:
        """There is nothing to prepare."""

    def _command(self) -> list[str | Path]:
        return [
            sys.executable,
            "-m",
            "outbox_bench.temporal_stub.frontend",
            f"--port={self._ports[0]}",
            *self.options.arguments(),
        ]

    def _ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._ports[0]), timeout=1):
                return True
        except OSError:
            return False
