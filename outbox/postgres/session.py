"""One connection in the place of a pool, for what lasts as long as the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import asyncpg

from outbox.postgres.connections import Connections

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection


class Session(Connections):
    """One connection in the place of a pool, never replaced: what it holds in the server ends with it.

    It ends with the first statement that does not come back in time. The connection stays its maker's to terminate.
    """

    def __init__(self, connection: Connection, statement_timeout_s: float) -> None:
        self._connection = connection
        self._statement_timeout_s = statement_timeout_s
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def acquire(self, *, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        """Lend the connection."""
        with anyio.fail_after(timeout_s or self._statement_timeout_s):
            async with self._turn:
                try:
                    yield self._connection
                except (asyncpg.PostgresError, asyncpg.DataError):
                    raise  # refused: the connection is as good as it was
                except BaseException:
                    self._connection.terminate()
                    raise

    async def replace_connections(self) -> None:
        """End the connection: there is no other."""
        self._connection.terminate()
