"""One connection to PostgreSQL: host by host, each attempt bounded, and no way in but the one that was asked for.

The driver gets every parameter, so that it does not read the environment on its own or fall back to weaker settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from outbox.model.errors import DatabaseUnavailable
from outbox.postgres.address import Where, at
from outbox.postgres.address.unix_sockets import within_reach
from outbox.postgres.errors import MISCONFIGURED, translated_errors
from outbox.postgres.pinned_settings import ANYWHERE, OF_SESSION, OWN_NAMES
from outbox.postgres.refusals import Refusal, explained, is_of_parameters

if TYPE_CHECKING:  # the driver's classes are generic in its stubs only
    import ssl
    from collections.abc import Mapping

    from asyncpg.pool import PoolConnectionProxy

    from outbox.postgres.address import Address, ConnectionParameters, Given, Host

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

CLOSE_TIMEOUT_S = 5.0
_WITH_TRANSACTION_TIMEOUT = 17
_LIFT = "select set_config('transaction_timeout', '0', false) where pg_backend_pid() operator(pg_catalog.=) $1"
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt on one host. Without a refusal it was let in."""

    host: Host
    refusal: Refusal | None


async def connect(
    where: Where,
    *,
    application_name: str,
    statements_kept: int = 0,
    session: Mapping[str, str] | None = None,
    own_names: bool = True,
) -> asyncpg.Connection[asyncpg.Record]:
    """Open one connection, bounded for each host. The caller owns it.

    It keeps no prepared statements unless asked for some. `session` are server parameters beside those of `pinned.py`,
    of which a pooler takes few. Without `own_names` the search_path stays as it is, for statements of a user. A
    connection string instead of an address is completed by libpq's variables. Raises ConfigurationError for
    what stays wrong until it is corrected, and then tries no other host; DatabaseUnavailable if no host answers now.
    """
    server = (at(where) if isinstance(where, str) else where).resolve()
    parameters = _parameters(server, application_name, {**(OWN_NAMES if own_names else {}), **(session or {})})
    reasons: list[tuple[Host, Refusal, Exception]] = []
    for host in server.in_turn():
        try:
            return await _try_host(server, host, statements_kept, parameters)
        except _FAILURES as error:
            refusal = explained(error, server, host)
            if refusal.lasting:
                raise refusal.error(f"connect to PostgreSQL at {host}") from error
            reasons.append((host, refusal, error))
    raise _none_left(reasons)


async def attempts(where: Address, *, application_name: str) -> list[Attempt]:
    """Try every host by itself, and say how far each let us. Raises ConfigurationError where nothing can be tried."""
    server = where.resolve()
    found = []
    for host in server.hosts:
        try:
            connection = await _try_host(server, host, 0, _parameters(server, application_name, {}))
        except _FAILURES as error:
            found.append(Attempt(host, explained(error, server, host)))
        else:
            connection.terminate()
            found.append(Attempt(host, None))
    return found


def _parameters(
    server: ConnectionParameters, application_name: str, session: Mapping[str, str]
) -> list[dict[str, str]]:
    """The session's parameters, and those that remain for a pooler that does not take all of them."""
    asked = {"options": options} if (options := server.optional("options")) else {}
    named = {"application_name": application_name}
    return [{**asked, **OF_SESSION, **session, **named}, {**asked, **ANYWHERE, **named}, {**asked, **named}]


def _none_left(reasons: list[tuple[Host, Refusal, Exception]]) -> DatabaseUnavailable:
    text = "; ".join(f"{host}: {reason}" for host, reason, _ in reasons)
    unavailable = DatabaseUnavailable(f"connect to PostgreSQL at {text}")
    unavailable.__cause__ = reasons[-1][2]
    return unavailable


async def _try_host(
    server: ConnectionParameters, host: Host, statements_kept: int, parameters: list[dict[str, str]]
) -> asyncpg.Connection[asyncpg.Record]:
    """Try one host, with and without TLS only where both were asked for."""
    *attempts, last = server.tls.contexts(host.name)
    knock = partial(_connect_with_parameters, server, host, server.password(host), statements_kept, parameters)
    for context in attempts:
        try:
            return await knock(context)
        except (OSError, *MISCONFIGURED):
            continue
    return await knock(last)


async def _connect_with_parameters(
    server: ConnectionParameters,
    host: Host,
    password: Given | None,
    statements_kept: int,
    parameters: list[dict[str, str]],
    context: ssl.SSLContext | None,
) -> asyncpg.Connection[asyncpg.Record]:
    """Connect with all parameters, or with those that the other side takes."""
    *more, least = parameters
    for wanted in more:
        try:
            connection = await _connect(server, host, password, statements_kept, wanted, context)
        except asyncpg.PostgresError as error:
            if not is_of_parameters(error):
                raise
        else:
            with ended_if_it_fails(connection):
                await _lift_transaction_timeout(connection)
            return connection
    return await _connect(server, host, password, statements_kept, least, context)


@contextmanager
def ended_if_it_fails(connection: Connection) -> Iterator[None]:
    """End a connection if the block fails or is cancelled before anyone else owns it."""
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


async def _lift_transaction_timeout(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Pin what older versions would refuse when a connection is made. Never through a pooler, where it would stay."""
    if connection.get_server_version().major >= _WITH_TRANSACTION_TIMEOUT:
        await connection.fetch(_LIFT, connection.get_server_pid(), timeout=CLOSE_TIMEOUT_S)


async def _connect(
    server: ConnectionParameters,
    host: Host,
    password: Given | None,
    statements_kept: int,
    parameters: dict[str, str],
    context: ssl.SSLContext | None,
) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(
        host=within_reach(host.name, host.port) if host.is_socket else host.name,
        port=host.port,
        user=server.user,
        password=lambda: password.value if password else "",  # a function, or the driver would look for one itself
        database=server.database,
        ssl=context or False,
        direct_tls=context is not None and server.tls.direct(),
        target_session_attrs=SessionAttribute(server.target),
        krbsrvname=server.optional("krbsrvname"),
        gsslib=cast("Literal['gssapi', 'sspi'] | None", server.optional("gsslib")),
        timeout=server.timeout_s,
        statement_cache_size=statements_kept,
        max_cacheable_statement_size=0,  # no limit: the driver's would plan our longest claim again each time
        server_settings=parameters,
    )


async def is_pooled(connection: Connection) -> bool:
    """Say whether there is a pooler between this connection and its PostgreSQL backend.

    It does not say in which mode the pooler works; that only shows when notifications do not arrive.
    """
    return bool(connection.get_server_pid() != await connection.fetchval("select pg_backend_pid()"))


@asynccontextmanager
async def connected(
    where: Where, *, application_name: str, own_names: bool = True
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Open one connection for a block of work; it is terminated, not drained, if the block fails."""
    connection = await connect(where, application_name=application_name, own_names=own_names)
    try:
        yield connection
        with translated_errors("close"):
            await connection.close(timeout=CLOSE_TIMEOUT_S)
    finally:
        connection.terminate()


def report_warnings(connection: Connection, write: Callable[[str], None]) -> None:
    """Pass the server's warnings to `write`, a line each, as they arrive on this connection."""

    def hear(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            write(": ".join(filter(None, (message.message, message.hint))).removeprefix("outbox: "))

    connection.add_log_listener(hear)


def place(where: Where) -> str:
    """Where an address or a connection string leads, for people, and nothing else of it."""
    return str(at(where) if isinstance(where, str) else where)
