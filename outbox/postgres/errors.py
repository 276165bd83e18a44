"""What the driver raises, as one of our errors: done once and here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from outbox.model.errors import (
    ConfigurationError,
    DatabaseReadOnly,
    DatabaseRefused,
    DatabaseUnavailable,
    StatementTimedOut,
)

MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28: wrong user or password, no pg_hba.conf entry
    asyncpg.InvalidCatalogNameError,
)
PASSING = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: shutdown, crash, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    asyncpg.PostgresSystemError,  # class 58: input or output failed
    asyncpg.TransactionRollbackError,  # class 40: deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.InternalServerError,  # class XX
)
_GIVEN_UP = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)
_READS_RELATION = "get_relation_info"
"""The function in PostgreSQL that refuses to read an unlogged table (`outbox.uptime`) on a standby, in any language."""


@contextmanager
def translated_errors(doing: str) -> Iterator[None]:
    """Turn every error of asyncpg while `doing` into DatabaseUnavailable, DatabaseRefused or ConfigurationError."""
    try:
        yield
    except MISCONFIGURED as error:
        raise ConfigurationError(
            f"{doing}: PostgreSQL refused the connection: {line(error)} (setting DATABASE_URL)"
        ) from error
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise DatabaseReadOnly(f"{doing}: {line(error)}: `outbox doctor` says why, and what to do") from error
    except PASSING as error:
        kind = StatementTimedOut if isinstance(error, _GIVEN_UP) else DatabaseUnavailable
        raise kind(f"{doing}: {line(error)}") from error
    except asyncpg.PostgresError as error:
        raise _refused(doing, error) from error
    except asyncpg.DataError as error:  # the driver could not encode a value
        raise DatabaseRefused(f"{doing}: {line(error)}", sqlstate="22000") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The driver's own state: a connection closed under us (which may also confuse it), or a pool being closed.
        raise DatabaseUnavailable(f"{doing}: {line(error)}") from error
    except TimeoutError as error:
        raise DatabaseUnavailable(f"{doing}: no answer in time") from error
    except OSError as error:
        raise DatabaseUnavailable(f"{doing}: {line(error)}") from error


def _refused(doing: str, error: asyncpg.PostgresError) -> DatabaseReadOnly | DatabaseRefused:
    """What a refusal means that is none of those above."""
    if isinstance(error, asyncpg.FeatureNotSupportedError) and error.server_source_function == _READS_RELATION:
        return DatabaseReadOnly(f"{doing}: this server is a standby, it is read-only: {line(error)}")
    cure = (
        ": `outbox doctor` examines the outbox's grants"
        if isinstance(error, asyncpg.InsufficientPrivilegeError)
        else ""
    )
    return DatabaseRefused(f"{doing}: {line(error)}{cure}", sqlstate=error.sqlstate or "")


def line(error: BaseException) -> str:
    """An error as one line: its message, or its class where it has none.

    PostgreSQL's detail stays out, because it quotes rows, and with them payloads.
    """
    text = str(error)
    if isinstance(error, asyncpg.PostgresError) and error.args:
        text = f"{error.args[0]}: {error.hint}" if error.hint else str(error.args[0])
    text = " ".join(text.split()).removeprefix("outbox: ")
    return text or type(error).__name__
