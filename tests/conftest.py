"""Real servers for every test that needs one.

One PostgreSQL for each test process, with a fresh database for each test; one Temporal dev server for the whole run.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from temporalio.client import Client

from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.temporal import TemporalServer
from tests.support.birthplaces import name_birthplaces
from tests.support.kept import keeping
from tests.support.memory import use_memory
from tests.support.shared import ServerHost, SharedServer, shared_server
from tests.support.supabase import logical_postgres, server, supabase, supabase_template
from tests.support.time_skipping import SERVER_CONFIG
from tests.support.versions import FAST_COPY, use_chosen_version

__all__ = ["logical_postgres", "server", "supabase", "supabase_template"]  # fixtures
TEMPLATE = "outbox_template"
APPLICATION_TEMPLATE = "application_template"
_numbers = count(1)
Administer = Callable[[str], Awaitable[None]]

use_chosen_version()
use_memory()
name_birthplaces()
hypothesis.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("shared machine")


HOST = pytest.StashKey[ServerHost]()


def pytest_configure(config: pytest.Config) -> None:
    """In the run's main process: be ready to start the server that all processes share."""
    if not hasattr(config, "workerinput"):
        start = partial(TemporalServer.start, ui=False, in_memory=True, dynamic_config=SERVER_CONFIG)
        config.stash[HOST] = ServerHost(start)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: tests wait about half of their time."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every garbage collection to come."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a process of pytest-xdist the way to that server."""
    node.workerinput["server_host"] = node.config.stash[HOST].socket


def pytest_unconfigure(config: pytest.Config) -> None:
    if host := config.stash.get(HOST, None):
        host.close()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that `outbox run` uses, one for the whole session."""
    return "asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL shared by this process's tests: never stop it; a test that must, starts its own."""
    with PostgresServer.start(fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
async def administer(anyio_backend: object, postgres: PostgresServer) -> AsyncIterator[Administer]:
    """Runs a statement as the superuser, always over the same connection unless that was lost."""
    connection = await asyncpg.connect(postgres.dsn(), timeout=10)

    async def run(statement: str) -> None:
        nonlocal connection
        if connection.is_closed():
            connection = await asyncpg.connect(postgres.dsn(), timeout=10)
        await connection.execute(statement, timeout=60)

    yield run
    await connection.close(timeout=10)


@pytest.fixture(scope="session")
async def migrated_template(administer: Administer, postgres: PostgresServer) -> str:
    """The name of a database with the outbox schema in it, to be copied."""
    from outbox.store.migrations import migrate

    await administer(f'create database "{TEMPLATE}"')
    await migrate(postgres.dsn(TEMPLATE))
    return TEMPLATE


@pytest.fixture
async def database(administer: Administer, postgres: PostgresServer, migrated_template: str) -> AsyncIterator[str]:
    """The DSN of a fresh database with the outbox schema."""
    async with _fresh_database(administer, postgres, migrated_template) as dsn:
        yield dsn


@pytest.fixture(scope="session")
async def application_template(administer: Administer, postgres: PostgresServer, migrated_template: str) -> str:
    """The name of a database with both schemas in it, the outbox's and the application's, to be copied."""
    from outbox.store.migrations import migrate
    from outbox_workflows.shared.migrations import APPLICATION

    await administer(f'create database "{APPLICATION_TEMPLATE}" template "{migrated_template}"')
    await migrate(postgres.dsn(APPLICATION_TEMPLATE), lineage=APPLICATION)
    return APPLICATION_TEMPLATE


@pytest.fixture
async def application_database(
    administer: Administer, postgres: PostgresServer, application_template: str
) -> AsyncIterator[str]:
    """The DSN of a fresh database with the outbox's and the application's schema."""
    async with _fresh_database(administer, postgres, application_template) as dsn:
        yield dsn


@pytest.fixture
async def empty_database(administer: Administer, postgres: PostgresServer) -> AsyncIterator[str]:
    """The DSN of a fresh database with nothing in it."""
    async with _fresh_database(administer, postgres, "template0") as dsn:
        yield dsn


@pytest.fixture(scope="session")
def temporal_server(pytestconfig: pytest.Config) -> SharedServer:
    """A Temporal dev server that all tests share, also those of other processes: a test that stops one starts its own."""
    if host := pytestconfig.stash.get(HOST, None):
        return shared_server(host.socket)
    return shared_server(pytestconfig.workerinput["server_host"])


@pytest.fixture
async def temporal_client(temporal_server: SharedServer) -> Client:
    """A client of the shared server. Its workflows stay: a test uses workflow ids and task queues of its own."""
    return await Client.connect(temporal_server.address)


@asynccontextmanager
async def _fresh_database(administer: Administer, postgres: PostgresServer, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await administer(f'create database "{name}" template "{template}"{FAST_COPY}')
    try:
        async with keeping(postgres.dsn(name)):
            yield postgres.dsn(name)
    finally:
        await administer(f'drop database "{name}" with (force)')
