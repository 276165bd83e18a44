"""Finds the SQL text that this package runs: migrations in their order, and one statement a file.

Every file is plain SQL, written for the schema `outbox`. Another schema is put in by replacing that qualifier, and
only a validated identifier can be put in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from outbox.model.schema_name import DEFAULT_SCHEMA, validated_schema

_QUALIFIER = re.compile(r"\boutbox\.")
_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")
_SERVES = re.compile(r"^-- serves: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. `checksum` is the SHA-256 of the file as shipped, the same for every schema."""

    version: int
    name: str
    text: str
    checksum: str
    serves: int | None = None
    """Workers that know the migrations up to this version can work with the schema after it; None: no older worker."""


def in_schema(text: str, schema: str) -> str:
    """Return SQL text with the qualifier `outbox.` replaced by the given schema's."""
    return text if schema == DEFAULT_SCHEMA else _QUALIFIER.sub(f"{validated_schema(schema)}.", text)


@cache
def query(name: str, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the statement of `sql/queries/<name>.sql`, such as `claim/plain`, for a schema."""
    return in_schema(_root().joinpath("queries", f"{name}.sql").read_text(encoding="utf-8"), schema)


@cache
def call(function: str, arguments: int = 0, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the statement that calls a function of a schema with this many arguments."""
    placeholders = ", ".join(f"${n}" for n in range(1, arguments + 1))
    return in_schema(f"select * from outbox.{function}({placeholders})", schema)  # noqa: S608 - both are names in code


@cache
def migrations(folder: str = "migrations") -> tuple[Migration, ...]:
    """Return every migration of this version in a folder of `sql`, in order."""
    found = []
    for entry in _root().joinpath(folder).iterdir():
        if match := _MIGRATION.fullmatch(entry.name):
            text = entry.read_text(encoding="utf-8")
            found.append(parsed(int(match[1]), match[2], text))
    return tuple(sorted(found, key=lambda migration: migration.version))


def parsed(version: int, name: str, text: str) -> Migration:
    """Return the migration of a file: a line `-- serves: 12` in it says which older workers it still serves."""
    serves = _SERVES.search(text)
    return Migration(version, name, text, hashlib.sha256(text.encode()).hexdigest(), int(serves[1]) if serves else None)


def _root() -> Traversable:
    """The `sql` folder: inside the package when installed from a wheel, beside it in a checkout."""
    packaged = files("outbox").joinpath("sql")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"
