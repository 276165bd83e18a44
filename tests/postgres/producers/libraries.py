"""Every way in which an application may hold a connection, each from the real library and with a transaction open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutine
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import django
import django.db
import psycopg
import sqlalchemy
import sqlalchemy.exc
from django.conf import settings
from django.db.backends.postgresql.base import DatabaseWrapper
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool


@dataclass
class Caller:
    """An application in the middle of a transaction."""

    connection: Any
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    refusal: type[Exception]
    """How its library raises what PostgreSQL refuses."""
    asynchronous: bool = False
    wait: Callable[[Coroutine[Any, Any, Any]], Any] | None = None

    def call(self, function: Callable[..., Any], *arguments: object, **options: object) -> Any:
        """Call a producer, and wait for its result exactly if the library is asynchronous."""
        result = function(self.connection, *arguments, **options)
        assert iscoroutine(result) == self.asynchronous
        return self.wait(result) if self.wait else result


Opens = Callable[[str], AbstractContextManager[Caller]]


@contextmanager
def asyncpg_connection(dsn: str, **arguments: Any) -> Iterator[Caller]:
    with asyncio.Runner() as loop:
        connection = loop.run(asyncpg.connect(dsn, timeout=10, **arguments))
        yield _in_asyncpg(connection, loop)
        loop.run(connection.close(timeout=10))


@contextmanager
def asyncpg_pool_connection(dsn: str) -> Iterator[Caller]:
    with asyncio.Runner() as loop:
        pool = loop.run(_pool(dsn))
        connection = loop.run(_acquired(pool))
        yield _in_asyncpg(connection, loop)
        loop.run(pool.release(connection))
        loop.run(pool.close())


def _in_asyncpg(connection: Any, loop: asyncio.Runner) -> Caller:
    """In a transaction, and after its end in the next, as with the others."""
    loop.run(connection.execute("begin"))
    return Caller(
        connection,
        lambda: loop.run(connection.execute("commit; begin")),
        lambda: loop.run(connection.execute("rollback; begin")),
        asyncpg.InvalidParameterValueError,
        asynchronous=True,
        wait=loop.run,
    )


async def _pool(dsn: str) -> asyncpg.Pool:
    return await asyncpg.create_pool(dsn, min_size=1, max_size=1, timeout=10)


async def _acquired(pool: asyncpg.Pool) -> Any:
    return await pool.acquire()


@contextmanager
def psycopg_connection(dsn: str, **arguments: Any) -> Iterator[Caller]:
    with psycopg.connect(dsn, **arguments) as connection:
        yield Caller(connection, connection.commit, connection.rollback, psycopg.errors.InvalidParameterValue)


@contextmanager
def psycopg_async_connection(dsn: str, **arguments: Any) -> Iterator[Caller]:
    with asyncio.Runner() as loop:
        connection = loop.run(psycopg.AsyncConnection.connect(dsn, **arguments))
        yield _asynchronous(connection, loop, psycopg.errors.InvalidParameterValue)
        loop.run(connection.close())


@contextmanager
def sqlalchemy_sync(kind: Callable[[sqlalchemy.Engine], Any], dsn: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(for_sqlalchemy(dsn, "psycopg"), poolclass=NullPool)
    connection = kind(engine)
    yield Caller(connection, connection.commit, connection.rollback, sqlalchemy.exc.DBAPIError)
    connection.close()
    engine.dispose()


@contextmanager
def sqlalchemy_async(kind: Callable[[Any], Any], driver: str, dsn: str) -> Iterator[Caller]:
    with asyncio.Runner() as loop:
        engine = create_async_engine(for_sqlalchemy(dsn, driver), poolclass=NullPool)
        connection = kind(engine)
        if isinstance(connection, AsyncConnection):
            loop.run(_started(connection))
        yield _asynchronous(connection, loop, sqlalchemy.exc.DBAPIError)
        loop.run(connection.close())
        loop.run(engine.dispose())


async def _started(connection: AsyncConnection) -> None:
    await connection.start()


def _asynchronous(connection: Any, loop: asyncio.Runner, refusal: type[Exception]) -> Caller:
    return Caller(
        connection,
        lambda: loop.run(connection.commit()),
        lambda: loop.run(connection.rollback()),
        refusal,
        asynchronous=True,
        wait=loop.run,
    )


def _scoped(engine: Any) -> Any:
    return scoped_session(sessionmaker(engine))


def _async_scoped(engine: Any) -> Any:
    return async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: None)


def for_sqlalchemy(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


@contextmanager
def django_connection(dsn: str, *, proxy: bool = True) -> Iterator[Caller]:
    """`django.db.connection` itself, or what `connections[alias]` gives."""
    if not settings.configured:
        settings.configure(USE_TZ=True, LOGGING_CONFIG=None)
        django.setup()
    parts = urlsplit(dsn)
    wrapper = DatabaseWrapper(_database_settings(parts.hostname, parts.port, parts.username, parts.path[1:]))
    django.db.connections["default"] = wrapper
    wrapper.set_autocommit(False)
    yield Caller(
        django.db.connection if proxy else wrapper, wrapper.commit, wrapper.rollback, django.db.utils.DataError
    )
    wrapper.close()
    del django.db.connections["default"]


def _database_settings(host: str | None, port: int | None, user: str | None, name: str) -> dict[str, Any]:
    handler = django.db.utils.ConnectionHandler(
        {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": host,
                "PORT": port,
                "USER": user,
                "NAME": name,
            }
        }
    )
    return handler.settings["default"]


LIBRARIES: dict[str, Opens] = {
    "asyncpg": asyncpg_connection,
    "asyncpg pool": asyncpg_pool_connection,
    "psycopg": psycopg_connection,
    "psycopg async": psycopg_async_connection,
    "sqlalchemy connection": partial(sqlalchemy_sync, lambda engine: engine.connect()),
    "sqlalchemy session": partial(sqlalchemy_sync, Session),
    "sqlalchemy scoped session": partial(sqlalchemy_sync, _scoped),
    "sqlalchemy async connection, asyncpg": partial(sqlalchemy_async, lambda engine: engine.connect(), "asyncpg"),
    "sqlalchemy async connection, psycopg": partial(sqlalchemy_async, lambda engine: engine.connect(), "psycopg"),
    "sqlalchemy async session": partial(sqlalchemy_async, AsyncSession, "asyncpg"),
    "sqlalchemy async scoped session": partial(sqlalchemy_async, _async_scoped, "asyncpg"),
    "django": django_connection,
    "django wrapper": partial(django_connection, proxy=False),
}
