"""An application's transaction, and a look at the table from outside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.postgres.producers.libraries import LIBRARIES, Caller, psycopg_connection

Rows = Callable[[], dict[UUID, dict[str, Any]]]


@pytest.fixture(params=LIBRARIES)
def caller(request: pytest.FixtureRequest, database: str) -> Iterator[Caller]:
    """A transaction open over each library in turn."""
    with LIBRARIES[request.param](database) as caller:
        yield caller


@pytest.fixture
def plain(database: str) -> Iterator[Caller]:
    """A transaction open over psycopg, where it does not matter which library it is."""
    with psycopg_connection(database) as caller:
        yield caller


@pytest.fixture
def rows(database: str) -> Iterator[Rows]:
    """What is committed, by message id. The payload is its text."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:

        def read() -> dict[UUID, dict[str, Any]]:
            found = connection.execute("select *, payload::text as payload from outbox.message order by seq").fetchall()
            return {row["message_id"]: row for row in found}

        yield read
