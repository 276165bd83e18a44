"""What a pool and a single session have in common: a connection is lent for one statement at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    from outbox.postgres.connect import Connection


class Connections(ABC):
    """Lends connections to one database."""

    @abstractmethod
    def acquire(self, *, timeout_s: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection. Raises TimeoutError when that, or the work on it, takes too long."""

    @abstractmethod
    async def replace_connections(self) -> None:
        """Lend none of the present connections again."""

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement and return its rows."""
        async with self.acquire() as connection:
            return await connection.fetch(statement, *arguments)

    async def fetch_slowly(self, statement: str, *arguments: object, timeout_s: float) -> list[asyncpg.Record]:
        """Run a statement, in a transaction of its own, under another bound than the pool's."""
        async with self.acquire(timeout_s=timeout_s) as connection, connection.transaction():
            await connection.execute(f"set local statement_timeout = {server_timeout_ms(timeout_s)}")
            return await connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        """Run a statement and return its first row."""
        async with self.acquire() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: object) -> Any:  # noqa: ANN401 - a column has any type
        """Run a statement and return the first column of its first row."""
        async with self.acquire() as connection:
            return await connection.fetchval(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> None:
        """Run a statement that returns nothing."""
        async with self.acquire() as connection:
            await connection.execute(statement, *arguments)


def server_timeout_ms(timeout_s: float) -> str:
    """PostgreSQL's bound for a statement that we give up after `timeout_s`: its answer has to travel."""
    return str(int(timeout_s * 900))
