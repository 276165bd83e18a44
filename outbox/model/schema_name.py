"""The name of an outbox's schema, which is put into SQL text and therefore checked."""

from __future__ import annotations

import re

from outbox.model.errors import ConfigurationError

DEFAULT_SCHEMA = "outbox"

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,39}")


def validated_schema(schema: str) -> str:
    """Return `schema` if it is a name that needs no quoting anywhere, else raise ConfigurationError."""
    if not _IDENTIFIER.fullmatch(schema) or schema.startswith("pg_"):
        message = (
            f"schema {schema!r} is not usable: use 1 to 40 lower-case letters, digits and underscores, "
            "not starting with a digit or pg_ (setting OUTBOX_SCHEMA)"
        )
        raise ConfigurationError(message)
    return schema
