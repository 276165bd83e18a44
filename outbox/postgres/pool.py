"""A pool of connections, each lent for one statement at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import asyncpg

from outbox.model.errors import AccessLost, ConfigurationError
from outbox.postgres.connect import connect, connected, ended_if_it_fails, is_pooled
from outbox.postgres.connections import Connections, server_timeout_ms
from outbox.postgres.errors import translated_errors

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from outbox.postgres.address import Where
    from outbox.postgres.connect import Connection

_RELEASE_TIMEOUT_S = 1.0
_GREETING_TIMEOUT_S = 5.0
_STATEMENTS_KEPT = 100
"""Prepared statements that a connection keeps; the driver's default."""


class Pool(Connections):
    """Connections to one database, each lent for one statement at a time.

    A statement that overruns its time has lost its connection, and probably all: a half-open socket shows nothing. The
    driver would wait for the cancellation of that statement to be confirmed, over the same network; here the connection
    is ended without a word, and the others are replaced before they are lent again.

    What the driver's pool has lent once stays here at hand: its own bookkeeping for each loan costs more than most
    statements.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], size: int, statement_timeout_s: float) -> None:
        self._pool = pool
        self._loans = anyio.Semaphore(size, fast_acquire=True)
        self._idle: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._generation = 0
        self._statement_timeout_s = statement_timeout_s

    @asynccontextmanager
    async def acquire(self, *, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection. Raises TimeoutError when that, or what is done with it, takes too long."""
        timeout_s = timeout_s or self._statement_timeout_s
        async with self._loans:
            connection = await self._take(timeout_s)
            generation, overrun = self._generation, _Overrun(connection)
            # A timer of the event loop, which costs a fortieth of a cancel scope; each statement needs one.
            timer = asyncio.get_running_loop().call_later(timeout_s, overrun)
            try:
                yield connection
            except BaseException as error:
                if overrun.happened and isinstance(error, Exception):
                    await self.replace_connections()
                    raise TimeoutError from error
                if not isinstance(error, asyncpg.PostgresError | asyncpg.DataError):
                    connection.terminate()  # a refusal leaves the connection as good as it was
                raise
            finally:
                timer.cancel()
                if _is_gone(connection) or generation != self._generation:
                    await self._give_back(connection)
                else:
                    self._idle.append(connection)

    async def replace_connections(self) -> None:
        """Lend none of the present connections again."""
        self._generation += 1
        await self._pool.expire_connections()
        while self._idle:
            await self._give_back(self._idle.pop())

    async def _take(self, timeout_s: float) -> PoolConnectionProxy[asyncpg.Record]:
        while self._idle:
            connection = self._idle.pop()
            if not _is_gone(connection):
                return connection
            await self._give_back(connection)
        with anyio.fail_after(timeout_s):
            return await self._pool.acquire()

    async def _give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        with anyio.CancelScope(shield=True):
            await self._pool.release(connection, timeout=_RELEASE_TIMEOUT_S)


def _is_gone(connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
    """Whether the connection is closed; the driver's pool then takes it back by itself."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


class _Overrun:
    """Ends a connection after its loan."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        self._connection = connection
        self.happened = False

    def __call__(self) -> None:
        self.happened = True
        self._connection.terminate()


class _ConnectionFactory:
    """Makes a pool's connections. There has been one before, so no refusal is for good.

    A password that is being rotated, a certificate that has run out, a database that is being restored: people
    will repair it, and each connection reads the settings again.
    """

    def __init__(self, where: Where, application_name: str) -> None:
        self._connect = partial(connect, where, application_name=application_name)
        self.statements_kept = 0
        self.session: dict[str, str] = {}
        self.greeting: str | None = None

    async def __call__(self, *_: object, **_of_the_driver: object) -> asyncpg.Connection[asyncpg.Record]:
        try:
            connection = await self._connect(statements_kept=self.statements_kept, session=self.session)
        except ConfigurationError as error:
            raise AccessLost(str(error)) from error
        if self.greeting is not None:
            # a schema that is not there yet is for others to find
            with ended_if_it_fails(connection), suppress(asyncpg.PostgresError):
                await connection.execute(self.greeting, timeout=_GREETING_TIMEOUT_S)
        return connection


@asynccontextmanager
async def open_pool(
    where: Where,
    *,
    size: int,
    application_name: str,
    statement_timeout_s: float,
    lock_timeout_s: float = 0.0,
    durable: bool = True,
    for_people: bool = False,
    greeting: str | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool. Every statement on it is bounded by `statement_timeout_s`, its wait for a lock by `lock_timeout_s`.

    The server gives a statement up a little earlier than the worker does, so that it does no work without a receiver.
    `for_people`: each statement is planned for its arguments, of which there may be none or a hundred thousand.
    `greeting`: a statement that each connection runs before it is lent.
    Without `durable` a commit does not wait for the disk: a crash of the server may lose those of its last moments.

    The first connection is made at once, so that a wrong address or password shows at the start, as ConfigurationError;
    later on the same is DatabaseUnavailable. Behind a pooler no named statements are used and no session settings: the
    next statement may run in another backend.
    """
    async with connected(where, application_name=application_name) as connection:
        with translated_errors("connect"):
            pooled = await is_pooled(connection)
    opener = _ConnectionFactory(where, application_name)
    opener.greeting = greeting
    if not pooled:
        opener.statements_kept = _STATEMENTS_KEPT
        opener.session = _session(statement_timeout_s, lock_timeout_s, durable=durable)
        if for_people:
            opener.session["plan_cache_mode"] = "force_custom_plan"
    with translated_errors("connect"):
        pool = await asyncpg.create_pool(
            min_size=0,  # else the driver would restore it by itself, and write tracebacks when it cannot
            max_size=size,
            max_inactive_connection_lifetime=0,
            reset=_nothing_to_reset,
            connect=opener,
        )
    try:
        with translated_errors("connect"):
            await pool.release(await pool.acquire())
        yield Pool(pool, size, statement_timeout_s)
    finally:
        pool.terminate()


def _session(statement_timeout_s: float, lock_timeout_s: float, *, durable: bool) -> dict[str, str]:
    return {
        # A prepared statement keeps the plan that was best while the table was small, and would then read a sudden
        # backlog from end to end for each claim.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",  # it reads all of a key, however many messages that has, to sort out the first
        "plan_cache_mode": "force_generic_plan",  # planning claim/restricted takes longer than running it
        "jit": "off",  # what small tables cost without an index looks so dear then that servers compile each statement
        "enable_indexscan": "on",
        "enable_nestloop": "on",
        "idle_in_transaction_session_timeout": "60s",  # a frozen worker must not keep its locks
        "statement_timeout": server_timeout_ms(statement_timeout_s),
        "lock_timeout": server_timeout_ms(lock_timeout_s),
        **({} if durable else {"synchronous_commit": "off"}),
    }


async def _nothing_to_reset(_connection: Connection) -> None:
    """Our statements leave no session state behind, so giving a connection back costs no round trip."""
