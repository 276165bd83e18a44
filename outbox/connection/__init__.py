"""Where PostgreSQL is and how to get in: read from the environment, put together, checked. Nothing here connects."""

from outbox.connection.address import Address, Where, at, database, listening
from outbox.connection.given import Environment, Faults, Given
from outbox.connection.server import CONNECT_TIMEOUT_S, Host, Server

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Address",
    "Environment",
    "Faults",
    "Given",
    "Host",
    "Server",
    "Where",
    "at",
    "database",
    "listening",
]
