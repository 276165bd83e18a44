"""Tenants are kept apart by the database, a step has its effect once, and its event goes through the outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import anyio
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from outbox.model.errors import DatabaseRefused, SchemaError
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.postgres import running as embedded
from outbox_workflows.shared.database import Application, open_application
from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.migrations import APPLICATION
from tests.support.running import fetch

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

EVENT = "insert into app.event (tenant_id, stream, type) values ($1, 's', 'tenant.named')"
NAME = "insert into app.tenant (tenant_id, name) values ($1, $2)"


@dataclass
class Made:
    """What a step returns."""

    tenant_id: UUID
    number: int


@pytest.fixture
async def application(application_database: str) -> AsyncIterator[Application]:
    async with open_application(application_database, "outbox", size=4) as opened:
        yield opened


async def test_a_tenant_sees_and_changes_its_own_rows_only(application: Application) -> None:
    one, other = uuid4(), uuid4()
    for tenant_id in (one, other):
        async with application.as_tenant(tenant_id) as connection:
            await connection.execute(NAME, tenant_id, "name")
    async with application.as_tenant(one) as connection:
        assert [row[0] for row in await connection.fetch("select tenant_id from app.tenant")] == [one]
        assert await connection.execute("update app.tenant set name = 'stolen'") == "UPDATE 1"
        assert await connection.execute("delete from app.tenant where tenant_id = $1", other) == "DELETE 0"
    with pytest.raises(DatabaseRefused, match="row-level security"):
        async with application.as_tenant(one) as connection:
            await connection.execute(NAME, uuid4(), "another's")


async def test_without_a_tenant_nothing_is_seen(application: Application) -> None:
    tenant_id = uuid4()
    async with application.as_tenant(tenant_id) as connection:
        await connection.execute(NAME, tenant_id, "name")
    async with application.pool.acquire() as connection, connection.transaction():
        await connection.execute("select app.enter(null)")
        assert await connection.fetch("select from app.tenant") == []


async def test_every_table_that_names_a_tenant_is_kept_apart(application: Application) -> None:
    open_tables = await application.pool.fetch(
        """
        select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
        where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
        """
    )
    assert open_tables == []


async def test_a_repeated_step_returns_what_it_returned_and_does_nothing(application: Application) -> None:
    tenant_id, done = uuid4(), []

    async def work(connection: Connection) -> Made:
        done.append(await connection.execute(NAME, tenant_id, "name"))
        return Made(tenant_id, len(done))

    async def step() -> Made:
        return await application.once(tenant_id, Made, work)

    first, second = [await ActivityEnvironment().run(step) for _ in range(2)]
    assert first == second == Made(tenant_id, 1)
    assert len(done) == 1


async def test_steps_that_run_at_the_same_time_have_their_effect_once(application: Application) -> None:
    tenant_id, made = uuid4(), []

    async def work(connection: Connection) -> int:
        await connection.execute(NAME, tenant_id, "name")
        return 1

    async def step() -> None:
        made.append(await application.once(tenant_id, int, work))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(ActivityEnvironment().run, step)
    assert made == [1, 1, 1, 1]


async def test_a_step_that_fails_leaves_nothing_and_may_be_taken_again(application: Application) -> None:
    tenant_id, tries = uuid4(), []

    async def work(connection: Connection) -> None:
        await connection.execute(NAME, tenant_id, "name")
        tries.append(1)
        if len(tries) == 1:
            raise OSError("the mail server is away")

    async def step() -> None:
        await application.once(tenant_id, type(None), work)

    with pytest.raises(OSError, match="mail server"):
        await ActivityEnvironment().run(step)
    await ActivityEnvironment().run(step)
    async with application.as_tenant(tenant_id) as connection:
        assert await connection.fetchval("select count(*) from app.tenant") == 1


async def test_what_the_database_refuses_is_not_tried_again(application: Application) -> None:
    tenant_id = uuid4()

    async def work(connection: Connection) -> None:
        await connection.execute(NAME, tenant_id, "")

    async def step() -> None:
        await application.once(tenant_id, type(None), work)

    with pytest.raises(ApplicationError, match="check constraint") as caught:
        await ActivityEnvironment().run(step)
    assert (caught.value.type, caught.value.non_retryable) == ("DatabaseRefused", True)


async def test_an_activity_id_serves_one_step_only(application: Application) -> None:
    tenant_id = uuid4()

    async def work(connection: Connection) -> None:
        return None

    async def step() -> None:
        await application.once(tenant_id, type(None), work)

    async def stranger() -> None:
        await application.once(uuid4(), type(None), work)

    await ActivityEnvironment().run(step)
    with pytest.raises(ApplicationError, match="give each step an id of its own"):
        await ActivityEnvironment().run(stranger)


async def test_an_event_becomes_a_message_of_its_id_with_the_transaction(
    application: Application, application_database: str
) -> None:
    tenant_id, events = uuid4(), []

    async def work(connection: Connection) -> None:
        events.append(await emit(connection, "organization-7", "organization.created", {"organization_id": 7}))
        await audit(connection, "system", "created", {"organization_id": 7, "said": ["\0", "\ud83d"]})

    async def step() -> None:
        await application.once(tenant_id, type(None), work)

    await ActivityEnvironment().run(step)
    [message] = await fetch(application_database, "select message_id, topic, key, payload from outbox.message")
    assert (message["message_id"], message["topic"], message["key"]) == (
        events[0],
        "organization.created",
        "organization-7",
    )
    assert '"organization_id": 7' in message["payload"]
    async with application.as_tenant(tenant_id) as connection:
        [entry] = await connection.fetch("select actor, action, workflow_id from app.audit")
    assert tuple(entry) == ("system", "created", ActivityEnvironment.default_info().workflow_id)
    for statement in ("delete from app.audit", "update app.event set type = 'forged'", "delete from app.step"):
        with pytest.raises(DatabaseRefused, match="permission denied"):
            async with application.as_tenant(tenant_id) as connection:
                await connection.execute(statement)


async def test_without_its_schema_the_application_is_refused_with_the_cure(database: str) -> None:
    with pytest.raises(SchemaError, match=r"no schema 'app': run `outbox workflows migrate`"):
        async with open_application(database, "outbox", size=1):
            raise AssertionError("opened")


async def test_migrating_again_changes_nothing(application_database: str) -> None:
    assert await migrate(application_database, lineage=APPLICATION) == []


async def test_the_schema_is_made_and_used_by_any_login_that_may_make_roles() -> None:
    tenant_id = uuid4()
    async with embedded(partial(PostgresServer.start, fsync=False)) as server:
        for owner in ("one", "other"):
            await fetch(server.dsn(), f"create role {owner} login createrole")
            await fetch(server.dsn(), f"create database {owner} owner {owner}")
        mine, others = (server.dsn(owner).replace("postgres@", f"{owner}@") for owner in ("one", "other"))
        await migrate(mine)
        await migrate(mine, lineage=APPLICATION)
        async with open_application(mine, "outbox", size=1) as application:
            async with application.as_tenant(tenant_id) as connection:
                await connection.execute(NAME, tenant_id, "name")
                await connection.execute(EVENT, tenant_id)
                assert len(await connection.fetch("select from app.event_chain")) == 1
            async with application.as_tenant(uuid4()) as connection:
                assert await connection.fetch("select from app.tenant") == []
                assert await connection.fetch("select from app.event_chain") == []
        await migrate(others)
        with pytest.raises(DatabaseRefused, match=r"made by another login: .* run: grant app_tenant to other"):
            await migrate(others, lineage=APPLICATION)
