"""Connections to PostgreSQL, and the translation of its driver's errors into ours, done once and here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import anyio
import asyncpg

from outbox.errors import ConfigurationError, DatabaseReadOnly, DatabaseRefused, DatabaseUnavailable

if TYPE_CHECKING:  # the driver's classes are generic in its stubs only
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

CONNECT_TIMEOUT_S = 5.0
"""Bounds one attempt to connect, TLS and authentication included."""
_RELEASE_TIMEOUT_S = 1.0
_STATEMENTS_KEPT = 100
"""Prepared statements that a connection keeps; the driver's default."""

_MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28: wrong user or password, no pg_hba.conf entry
    asyncpg.InvalidCatalogNameError,
)
_PASSING = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: shutdown, crash, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    asyncpg.PostgresSystemError,  # class 58: input or output failed
    asyncpg.TransactionRollbackError,  # class 40: deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.InternalServerError,  # class XX
)


@contextmanager
def translated_errors(doing: str) -> Iterator[None]:
    """Turn whatever asyncpg raises while `doing` into DatabaseUnavailable, DatabaseRefused or ConfigurationError."""
    try:
        yield
    except _MISCONFIGURED as error:
        raise ConfigurationError(
            f"{doing}: PostgreSQL refused the connection: {_line(error)} (setting DATABASE_URL)"
        ) from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise DatabaseReadOnly(f"{doing}: {_line(error)}") from error
    except _PASSING as error:
        raise DatabaseUnavailable(f"{doing}: {_line(error)}") from error
    except asyncpg.PostgresError as error:
        raise DatabaseRefused(f"{doing}: {_line(error)}", sqlstate=error.sqlstate or "") from error
    except asyncpg.DataError as error:  # the driver could not encode a value
        raise DatabaseRefused(f"{doing}: {_line(error)}", sqlstate="22000") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The driver's own state: a connection closed under us (which may also confuse it), or a pool being closed.
        raise DatabaseUnavailable(f"{doing}: {_line(error)}") from error
    except TimeoutError as error:
        raise DatabaseUnavailable(f"{doing}: no answer in time") from error
    except OSError as error:
        raise DatabaseUnavailable(f"{doing}: {_line(error)}") from error


async def connect(dsn: str, *, application_name: str) -> asyncpg.Connection[asyncpg.Record]:
    """Open one connection, bounded by CONNECT_TIMEOUT_S. The caller owns it. It uses no named statements."""
    with translated_errors(f"connect to {place(dsn)}"), invalid_dsn():
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=0,
            server_settings={"application_name": application_name},
        )


async def is_pooled(connection: Connection) -> bool:
    """Say whether something stands between this connection and its PostgreSQL backend, as poolers do.

    It does not say in which mode the pooler works; that only shows when notifications do not arrive.
    """
    return bool(connection.get_server_pid() != await connection.fetchval("select pg_backend_pid()"))


@asynccontextmanager
async def connected(dsn: str, *, application_name: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Open one connection for a block of work; it is terminated, not drained, if the block fails."""
    connection = await connect(dsn, application_name=application_name)
    try:
        yield connection
        with translated_errors("close"):
            await connection.close(timeout=CONNECT_TIMEOUT_S)
    finally:
        connection.terminate()


class Pool:
    """Connections to one database, each lent for one statement at a time.

    A statement that overruns its time has lost its connection, and probably all: a half-open socket tells nothing. The
    driver would wait for the cancellation of that statement to be confirmed, over the same network; here the connection
    is ended without a word, and the others are replaced before they are lent again.

    What the driver's pool has lent once stays here at hand: its own bookkeeping for each loan costs more than most
    statements.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], size: int, statement_timeout_s: float) -> None:
        self._pool = pool
        self._loans = anyio.Semaphore(size, fast_acquire=True)
        self._at_hand: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._generation = 0
        self._statement_timeout_s = statement_timeout_s

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement and return its rows."""
        async with self.acquire() as connection:
            return await connection.fetch(statement, *arguments)

    async def fetch_slowly(self, statement: str, *arguments: object, timeout_s: float) -> list[asyncpg.Record]:
        """Run a statement, in a transaction of its own, under another bound than the pool's."""
        async with self.acquire(timeout_s=timeout_s) as connection, connection.transaction():
            await connection.execute(f"set local statement_timeout = {_server_timeout_ms(timeout_s)}")
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
                    connection.terminate()  # whatever was refused has left the connection as good as it was
                raise
            finally:
                timer.cancel()
                if _is_gone(connection) or generation != self._generation:
                    await self._give_back(connection)
                else:
                    self._at_hand.append(connection)

    async def replace_connections(self) -> None:
        """Lend none of the present connections again."""
        self._generation += 1
        await self._pool.expire_connections()
        while self._at_hand:
            await self._give_back(self._at_hand.pop())

    async def _take(self, timeout_s: float) -> PoolConnectionProxy[asyncpg.Record]:
        while self._at_hand:
            connection = self._at_hand.pop()
            if not _is_gone(connection):
                return connection
            await self._give_back(connection)
        with anyio.fail_after(timeout_s):
            return await self._pool.acquire()

    async def _give_back(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        with anyio.CancelScope(shield=True):
            await self._pool.release(connection, timeout=_RELEASE_TIMEOUT_S)


def _is_gone(connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
    """Whether the connection is closed, upon which the driver's pool takes it back unasked."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


class _Overrun:
    """Ends a connection whose loan is over."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        self._connection = connection
        self.happened = False

    def __call__(self) -> None:
        self.happened = True
        self._connection.terminate()


class Session(Pool):
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


@asynccontextmanager
async def open_pool(
    dsn: str, *, size: int, application_name: str, statement_timeout_s: float, durable: bool = True
) -> AsyncIterator[Pool]:
    """Open a pool. Every statement on it is bounded by `statement_timeout_s`.

    The server gives a statement up a little earlier than we do: what it went on with would be done for nobody.
    Without `durable` a commit does not wait for the disk: a crash of the server may lose those of its last moments.

    The first connection is made at once, so that a wrong address or password shows at the start. Behind a pooler no
    named statements are used and no session settings: the next statement may run in another backend.
    """
    async with connected(dsn, application_name=application_name) as connection:
        with translated_errors("connect"):
            pooled = await is_pooled(connection)
    session = {
        # A prepared statement keeps the plan that was best while the table was small, and would then read a sudden
        # backlog from end to end for each claim.
        "enable_seqscan": "off",
        "jit": "off",  # what small tables cost without an index looks so dear then that servers compile each statement
        "default_transaction_isolation": "read committed",  # the database may have another default
        "statement_timeout": _server_timeout_ms(statement_timeout_s),
        **({} if durable else {"synchronous_commit": "off"}),
    }
    with translated_errors(f"connect to {place(dsn)}"), invalid_dsn():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            timeout=CONNECT_TIMEOUT_S,
            max_inactive_connection_lifetime=0,
            reset=_nothing_to_reset,
            statement_cache_size=0 if pooled else _STATEMENTS_KEPT,
            server_settings={"application_name": application_name} | ({} if pooled else session),
        )
    try:
        yield Pool(pool, size, statement_timeout_s)
    finally:
        pool.terminate()


def _server_timeout_ms(timeout_s: float) -> str:
    """PostgreSQL's bound for a statement that we give up after `timeout_s`: its answer has to travel."""
    return str(int(timeout_s * 900))


async def _nothing_to_reset(_connection: Connection) -> None:
    """Our statements leave no session state behind, so giving a connection back costs no round trip."""


@contextmanager
def invalid_dsn() -> Iterator[None]:
    """Name the setting when the driver cannot read the connection string."""
    try:
        yield
    except asyncpg.ClientConfigurationError as error:
        raise ConfigurationError(f"DATABASE_URL cannot be used: {_line(error)}") from error
    except ValueError:
        # Its text quotes what stands where the port should be, and that may be the password's beginning.
        raise ConfigurationError(
            "DATABASE_URL cannot be used: the port is not a number (write / ? # @ in a password as %2F %3F %23 %40)"
        ) from None


def place(dsn: str) -> str:
    """Where a connection string leads, for people, and nothing else of it."""
    try:
        parts = urlsplit(dsn)
        hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["its default address"])[0]
    except ValueError:
        return "PostgreSQL"
    return f"PostgreSQL at {hosts}"


def _line(error: BaseException) -> str:
    """An error as one line: its message, or its class where it has none.

    PostgreSQL's detail stays out, because it quotes rows, and with them payloads.
    """
    text = str(error)
    if isinstance(error, asyncpg.PostgresError) and error.args:
        text = f"{error.args[0]} HINT: {error.hint}" if error.hint else str(error.args[0])
    text = " ".join(text.split()).removeprefix("outbox: ")
    return text or type(error).__name__
