"""What our sessions depend on and roles, databases or servers may set otherwise: pinned where a connection is made.

A pooler takes few of these parameters, and some of them only; there the functions of the schema still pin what they
depend on by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ANYWHERE: Final[Mapping[str, str]] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "standard_conforming_strings": "on",
}
"""What poolers take too: PgBouncer keeps these for each of its clients."""

OF_SESSION: Final[Mapping[str, str]] = {
    **ANYWHERE,
    "IntervalStyle": "postgres",
    "quote_all_identifiers": "off",
    "extra_float_digits": "1",  # times in seconds have sixteen digits
    "client_min_messages": "notice",
    "row_security": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Each statement is bounded where it is sent, and each connection has a purpose until it is closed.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

OWN_NAMES: Final[Mapping[str, str]] = {"search_path": "pg_catalog, pg_temp"}
"""For statements that are all ours: they find PostgreSQL's operators and functions, never those of another login."""
