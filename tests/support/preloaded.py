"""The process from which commands are forked (see `commands.py`): it has loaded the program, and waits to be asked.

A command that is forked has its own streams, environment, directory, signals and exit code, and leaves as any process
does. What it does not show is how the program is loaded: tests of that start an interpreter.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import traceback
from importlib.metadata import entry_points
from pkgutil import walk_packages
from typing import Any, NoReturn

import outbox
import outbox_temporal

STATUS = struct.Struct("<i")
REQUEST_BYTES = 1 << 20
DESCRIPTORS = 4
_LIBRARIES = (
    "anyio._backends._asyncio",
    "asyncpg",
    "temporalio.client",
    "temporalio.worker",
    "tests.support.sinks",
    "uvloop",
)
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def load() -> None:
    """Import what commands import, also while they run."""
    for module in _LIBRARIES:
        importlib.import_module(module)
    for package in (outbox, outbox_temporal):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for entry in entry_points(group="outbox.commands"):
        entry.load()


def serve(requests: socket.socket) -> None:
    """Fork a command for each request, and report its end; return when the tests have gone."""
    waiting = selectors.DefaultSelector()
    waiting.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data:
                pid, status = key.data
                waiting.unregister(key.fd)
                os.close(key.fd)
                _, code = os.waitpid(pid, 0)
                _write_number(status, code)
                os.close(status)
                continue
            request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, DESCRIPTORS)
            if not request:
                return
            pid = os.fork()
            if not pid:
                _become(json.loads(request), descriptors)
            *streams, status = descriptors
            for descriptor in streams:
                os.close(descriptor)
            _write_number(status, pid)
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, status))


def _write_number(status: int, number: int) -> None:
    try:
        os.write(status, STATUS.pack(number))
    except BrokenPipeError:
        pass  # the test has ended without waiting


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the command `outbox` with these arguments."""
    try:
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[attr-defined]
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        path = request["environment"].get("PYTHONPATH")
        sys.path[0:1] = [request["directory"], *(path.split(os.pathsep) if path else ())]
        importlib.invalidate_caches()
        sys.argv = ["outbox", *request["arguments"]]
        sys.modules["__main__"].__package__ = None  # the usage line says `outbox`
        importlib.import_module("outbox.__main__").main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:  # noqa: BLE001 - as the interpreter would
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        load()
        gc.collect()
        gc.freeze()
        serve(connection)
