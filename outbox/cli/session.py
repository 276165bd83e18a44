"""How a command asks the database: an event loop and a connection for one question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from outbox.config.settings import Settings, load
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


def ask_store(make: Callable[[Pool, str], S], call: Callable[[S], Awaitable[T]], settings: Settings | None = None) -> T:
    """Ask the outbox, by default that of the environment. Raises SchemaError unless migrated."""
    return ask(partial(with_store, settings or load(), make, call))


async def with_store(
    settings: Settings,
    make: Callable[[Pool, str], S],
    call: Callable[[S], Awaitable[T]],
    *,
    name: str = "outbox cli",
    answer_timeout_s: float = _ANSWER_TIMEOUT_S,
) -> T:
    """Answer a question about the outbox over a connection of its own. Raises SchemaError unless migrated."""
    async with open_pool(
        settings.dsn, size=1, application_name=name, statement_timeout_s=answer_timeout_s, for_people=True
    ) as pool:
        async with pool.acquire() as connection:
            await require_current(connection, settings.schema_name)
        return await call(make(pool, settings.schema_name))
