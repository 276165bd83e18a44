"""Where PostgreSQL is and how to get in: read from the environment, put together, checked. Nothing here connects."""

from outbox.postgres.address.address import Address, Where, at, database, listening
from outbox.postgres.address.environment import Environment, Faults, Given
from outbox.postgres.address.server import CONNECT_TIMEOUT_S, ConnectionParameters, Host

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Address",
    "ConnectionParameters",
    "Environment",
    "Faults",
    "Given",
    "Host",
    "Where",
    "at",
    "database",
    "listening",
]
