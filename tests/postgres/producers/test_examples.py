"""The examples of docs/producing.md do what they show."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from django.db import connection, models, transaction
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from outbox.producer import start_workflow
from tests.postgres.producers.conftest import Rows
from tests.postgres.producers.libraries import django_connection, for_sqlalchemy

PRODUCING = Path(__file__).parents[3] / "docs" / "producing.md"
EXAMPLES = re.findall(r"```python\n# (.*?)\n(.*?)```", PRODUCING.read_text(encoding="utf-8"), re.DOTALL)


class Base(DeclarativeBase):
    pass


class Organization(Base):
    __tablename__ = "organizations"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def run(text: str, dsn: str, **names: Any) -> None:
    """Run an example in which these names are known."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        names |= {"DATABASE_URL": dsn, "psycopg": psycopg, "start_workflow": start_workflow, "pool": pool}
        names |= {"Session": Session, "AsyncSession": AsyncSession, "Organization": Organization}
        names["engine"] = sqlalchemy.create_engine(for_sqlalchemy(dsn, "psycopg"), poolclass=NullPool)
        names["async_engine"] = create_async_engine(for_sqlalchemy(dsn, "asyncpg"), poolclass=NullPool)
        exec(f"async def example():\n{textwrap.indent(text, '    ')}", names)
        await names["example"]()


def in_django(text: str, dsn: str) -> None:
    with django_connection(dsn) as caller:
        caller.connection.set_autocommit(True)

        class Company(models.Model):
            name = models.TextField()

            class Meta:
                app_label = "tests"
                db_table = "organizations"

        exec(
            text,
            {
                "Organization": Company,
                "transaction": transaction,
                "connection": connection,
                "start_workflow": start_workflow,
            },
        )


@pytest.mark.parametrize(("title", "text"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example_commits_the_data_and_the_message(database: str, rows: Rows, title: str, text: str) -> None:
    with psycopg.connect(database) as setting_up:
        setting_up.execute("create table organizations (id bigint primary key, name text not null)")
    if title.startswith("Django"):
        in_django(text, database)
    else:
        asyncio.run(run(text, database))
    [row] = rows().values()
    assert (row["target"]["workflow_id"], row["payload"]) == ("org-bootstrap-42", '{"organization_id":42}')
    with psycopg.connect(database) as looking:
        assert looking.execute("select * from organizations").fetchall() == [(42, "Acme")]


def test_every_library_has_an_example() -> None:
    assert len(EXAMPLES) == 6
