"""Temporary files in memory, where there is room: the servers of the tests keep their data there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - a file system, not a file
ROOM = 4 << 30
"""Bytes that must be free. A container often has 64 MB there; then the disk is used."""


def use_memory() -> None:
    """Make memory the place of temporary files for this process and its children, unless TMPDIR names another."""
    if "TMPDIR" not in os.environ and _usable():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # have it read again


def _usable() -> bool:
    """Whether programs can be run from there (servers copy their binaries) and there is room."""
    if not os.access(MEMORY, os.W_OK):
        return False
    return not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and shutil.disk_usage(MEMORY).free >= ROOM
