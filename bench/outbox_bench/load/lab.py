"""Where a benchmark runs: the database and the Temporal that the user named, else throwaway real ones from wheels."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Self

from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer, running
from outbox_temporal.servers.temporal import TemporalServer

if TYPE_CHECKING:
    from types import TracebackType

POSTGRES_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
"""The usual settings for a database under load; fsync stays on."""


class Lab:
    """Servers for one benchmark, started at first use and closed at the end.

    A named database must be meant for this: scenarios empty the outbox tables in it.
    """

    def __init__(self, dsn: str | None = None, temporal_address: str | None = None) -> None:
        self._dsn = dsn
        self._temporal_address = temporal_address
        self._servers = AsyncExitStack()
        self.embedded: list[str] = []
        """Which servers are our own, for the report."""

    @property
    def servers(self) -> tuple[str | None, str | None]:
        """Where PostgreSQL and Temporal are, if they were named or are already in use."""
        return self._dsn, self._temporal_address

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._servers.aclose()

    async def database(self) -> str:
        """URL of the database."""
        if self._dsn is None:
            server = await self._servers.enter_async_context(
                running(partial(PostgresServer.start, settings=POSTGRES_SETTINGS))
            )
            self._dsn = server.dsn()
            self.embedded.append("PostgreSQL")
        return self._dsn

    async def outbox(self) -> str:
        """URL of the database, with the current schema of the outbox in it."""
        dsn = await self.database()
        await migrate(dsn)
        return dsn

    async def temporal(self) -> str:
        """host:port of Temporal's frontend."""
        if self._temporal_address is None:
            server = await self._servers.enter_async_context(
                running(partial(TemporalServer.start, ui=False, in_memory=True))
            )
            self._temporal_address = server.address
            self.embedded.append("Temporal dev server")
        return self._temporal_address
