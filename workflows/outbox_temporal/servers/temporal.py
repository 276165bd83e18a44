"""Temporal's dev server from its wheel, for the time of a `with` block."""

from __future__ import annotations

import json
import shutil
import signal
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import anyio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from outbox.model.errors import ConfigurationError
from outbox_temporal.servers.postgres import MISSING
from outbox_temporal.servers.process import EmbeddedServer


class TemporalServer(EmbeddedServer):
    """Temporal's dev server with namespace `default`.

    It keeps its state in a file, so that a restart loses nothing, or in memory, which is several times faster.
    """

    title, stop_signal, death_signal = "Temporal dev server", signal.SIGTERM, signal.SIGKILL

    def __init__(
        self,
        directory: Path | None,
        namespaces: Sequence[str],
        dynamic_config: Mapping[str, object],
        *,
        ui: bool,
        in_memory: bool,
    ) -> None:
        super().__init__(directory)
        self._namespaces, self._dynamic_config, self._ui = namespaces, dynamic_config, ui
        self._in_memory = in_memory
        self._binary = ""

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        namespaces: Sequence[str] = (),
        dynamic_config: Mapping[str, object] | None = None,
        ui: bool = True,
        in_memory: bool = False,
    ) -> Self:
        """Start on the state in `directory`/temporal.db; without a directory, on a temporary one.

        `namespaces` are made beside `default`; `dynamic_config` holds server settings such as `frontend.namespaceRPS`.
        """
        return cls(directory, ("default", *namespaces), dynamic_config or {}, ui=ui, in_memory=in_memory)._begin()

    @property
    def address(self) -> str:
        """host:port of the gRPC frontend."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def ui_url(self) -> str | None:
        """Where a browser finds the web interface; None if it was not asked for."""
        return f"http://127.0.0.1:{self._ports[1]}" if self._ui else None

    def stop(self) -> None:
        """End the server in order and keep its state for `restart`."""
        self._end(self.stop_signal)

    def _prepare(self) -> None:
        beside_python = Path(sysconfig.get_path("scripts")) / "temporal"
        binary = str(beside_python) if beside_python.exists() else shutil.which("temporal")
        if binary is None:
            raise ConfigurationError(MISSING.format("the executable `temporal`"))
        self._binary = binary
        self.directory.mkdir(parents=True, exist_ok=True)

    def _command(self) -> list[str | Path]:
        options = ["--ip=127.0.0.1", f"--port={self._ports[0]}"]
        options += [] if self._in_memory else [f"--db-filename={self.directory / 'temporal.db'}"]
        options += ["--log-level=error", "--disable-config-env", "--disable-config-file", "--ui-disable-news-fetch"]
        options += [f"--ui-port={self._ports[1]}" if self._ui else "--headless"]
        options += [f"--namespace={name}" for name in self._namespaces]
        options += [f"--dynamic-config-value={name}={json.dumps(v)}" for name, v in self._dynamic_config.items()]
        return [self._binary, "server", "start-dev", *options]

    def _ready(self) -> bool:
        # The SDK is async only; in a thread of our own it does not touch the caller's event loop.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(anyio.run, self._serves).result()

    async def _serves(self) -> bool:
        """Whether the frontend is healthy, has every namespace, and reaches the history service behind it."""
        try:
            with anyio.fail_after(2):
                service = await ServiceClient.connect(ConnectConfig(target_host=self.address))
                return await service.check_health() and all([await _knows(service, name) for name in self._namespaces])
        except (RPCError, RuntimeError, TimeoutError):
            return False


async def _knows(service: ServiceClient, namespace: str) -> bool:
    """Ask for a workflow that cannot exist: the frontend resolves the namespace, the history service says not found."""
    request = DescribeWorkflowExecutionRequest(namespace=namespace, execution=WorkflowExecution(workflow_id="-"))
    try:
        await service.workflow_service.describe_workflow_execution(request)
    except RPCError as error:
        return "workflow not found" in error.message
    return True
