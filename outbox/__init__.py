"""Transactional outbox for PostgreSQL: commit an event with your data, and it is delivered.

The core claims rows of the outbox table and hands them to a sink; it knows nothing of what a sink does.
Start reading at `outbox.worker`, which composes the parts, and follow a message through `outbox.relay`.
"""

__version__ = "0.1.0"
