"""A database that can be replicated, and a Realtime server before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count

import asyncpg
import pytest

from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.eventually import eventually
from tests.support.realtime_server import RealtimeServer, prepare, realtime_server
from tests.support.running import fetch
from tests.support.versions import FAST_COPY

_numbers = count(1)


@pytest.fixture(scope="session")
def logical_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL with logical replication, shared by this process's tests."""
    settings = {"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20"}
    with PostgresServer.start(fsync=False, settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
async def supabase_template(anyio_backend: object, logical_postgres: PostgresServer) -> str:
    """The name of a database that looks like Supabase's, with the outbox in it and its messages published."""
    name = "realtime_template"
    await fetch(logical_postgres.dsn(), f"create database {name}")
    dsn = logical_postgres.dsn(name)
    await migrate(dsn)
    await prepare(dsn, "outbox.message", broadcast=True)
    await fetch(dsn, "grant usage on schema outbox to service_role, authenticated; ")
    await fetch(dsn, "grant select on outbox.message to service_role")
    return name


@pytest.fixture
async def supabase(logical_postgres: PostgresServer, supabase_template: str) -> AsyncIterator[str]:
    """The DSN of a fresh copy of this database."""
    name = f"realtime_{next(_numbers)}"
    await fetch(logical_postgres.dsn(), f"create database {name} template {supabase_template}{FAST_COPY}")
    yield logical_postgres.dsn(name)
    await eventually(partial(_dropped, logical_postgres.dsn(), name), bool)


async def _dropped(dsn: str, name: str) -> bool:
    """Drop a database; False while the replication that was just ended still holds its slot."""
    try:
        await fetch(dsn, f"drop database {name} with (force)")
    except asyncpg.ObjectInUseError:
        return False
    return True


@pytest.fixture
async def server(supabase: str) -> AsyncIterator[RealtimeServer]:
    """The Realtime server before that database."""
    async with realtime_server(supabase) as server:
        yield server
