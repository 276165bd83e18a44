"""Unix sockets with paths longer than the kernel accepts, as with Cloud SQL: it accepts them by their directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from outbox.model.errors import ConfigurationError

_LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes of a path in a socket's address, without the NUL that ends it."""
_open: dict[Path, int] = {}


def within_reach(directory: str, port: int) -> str:
    """The directory of a socket by a name that is short enough. Raises ConfigurationError where there is none.

    It stays open for the life of the process, for connections that are made, and cancelled, later on.
    """
    socket = directory if ".s.PGSQL." in directory else f"{directory}/.s.PGSQL.{port}"
    if len(os.fsencode(socket)) <= _LONGEST or directory.startswith("@"):
        return directory
    if sys.platform != "linux":
        raise ConfigurationError(
            f"the socket's path {socket} is longer than {_LONGEST} bytes: make a symbolic link to its directory in a "
            "shorter place, and name that as the host"
        )
    path = Path(socket)
    short = f"/proc/self/fd/{_descriptor(path.parent)}"
    return f"{short}/{path.name}" if ".s.PGSQL." in directory else short


def _descriptor(directory: Path) -> int:
    """The open directory, opened again if another one has taken its place."""
    known = _open.get(directory)
    if known is not None and os.path.samestat(directory.stat(), os.fstat(known)):
        return known
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if known is not None:
        os.close(known)
    _open[directory] = descriptor
    return descriptor
