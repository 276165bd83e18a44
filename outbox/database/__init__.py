"""Connections to PostgreSQL, and the translation of its driver's errors into ours. The driver stays in here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox.connection import CONNECT_TIMEOUT_S
from outbox.database.connect import Attempt, attempts, connect, connected, hear_warnings, is_pooled, place
from outbox.database.pool import Pool, open_pool
from outbox.database.session import Session
from outbox.database.translation import translated_errors

if TYPE_CHECKING:
    from outbox.database.connect import Connection as Connection

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Attempt",
    "Pool",
    "Session",
    "attempts",
    "connect",
    "connected",
    "hear_warnings",
    "is_pooled",
    "open_pool",
    "place",
    "translated_errors",
]
