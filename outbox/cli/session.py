"""How a command asks the database: an event loop and a connection for one question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from outbox.config.settings import Settings
from outbox.postgres.pool import Pool, open_pool
from outbox.store.migrations import require_current

S = TypeVar("S")
T = TypeVar("T")
_ANSWER_TIMEOUT_S = 30.0


def ask(call: Callable[[], Awaitable[T]]) -> T:
    """Run an async call to its end, on the fastest event loop that is installed."""
    try:
        import uvloop  # noqa: F401, PLC0415 - absent on Windows
    except ImportError:
        return anyio.run(call)
    return anyio.run(call, backend_options={"use_uvloop": True})


async def with_store(settings: Settings, make: Callable[[Pool, str], S], call: Callable[[S], Awaitable[T]]) -> T:
    """Answer a question about the outbox over a connection of its own. Raises SchemaError unless migrated."""
    async with open_pool(
        settings.dsn,
        size=1,
        application_name="outbox cli",
        statement_timeout_s=_ANSWER_TIMEOUT_S,
        for_people=True,
    ) as pool:
        async with pool.acquire() as connection:
            await require_current(connection, settings.schema_name)
        return await call(make(pool, settings.schema_name))
