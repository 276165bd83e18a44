"""A step is undone once, also if it is not known whether it happened, and never comes after its undoing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import anyio
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from outbox.model.errors import DatabaseRefused
from outbox_workflows.shared.database import Application, open_application
from outbox_workflows.shared.saga_types import Undo
from outbox_workflows.shared.undo import undo
from tests.support.eventually import eventually
from tests.support.running import fetch

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

T = TypeVar("T")
STEP = "create-tenant"
INSERT = "insert into app.tenant (tenant_id, name) values ($1, $2)"
WAITS = "select count(*) from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"


@pytest.fixture
async def application(application_database: str) -> AsyncIterator[Application]:
    async with open_application(application_database, "outbox", size=4) as opened:
        yield opened


async def as_activity(name: str, work: Callable[[], Awaitable[T]]) -> T:
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), activity_id=name, activity_type=name)

    async def run() -> T:
        return await work()

    return await environment.run(run)


class Tenant:
    """A step that makes a tenant, and its undoing."""

    def __init__(self, application: Application) -> None:
        self.application, self.tenant_id = application, uuid4()
        self.may_commit = anyio.Event()
        self.may_commit.set()
        self.saw: list[Any] = []

    async def make(self) -> str:
        async def work(connection: Connection) -> str:
            await connection.execute(INSERT, self.tenant_id, "Acme")
            await self.may_commit.wait()
            return "made"

        return await as_activity(STEP, lambda: self.application.once(self.tenant_id, str, work))

    async def unmake(self, tenant_id: UUID | None = None) -> bool:
        async def work(connection: Connection, made: object) -> None:
            self.saw.append(made)
            await connection.execute("delete from app.tenant where tenant_id = $1", self.tenant_id)

        order = Undo(str(tenant_id or self.tenant_id), STEP, "system", "failed")
        return await as_activity(f"undo-{STEP}", lambda: undo(self.application, order, work))

    async def is_there(self) -> bool:
        async with self.application.as_tenant(self.tenant_id) as connection:
            return bool(await connection.fetch("select from app.tenant"))


async def test_a_step_is_undone_once_and_its_result_is_passed_to_the_undoing(application: Application) -> None:
    tenant = Tenant(application)
    await tenant.make()
    assert await tenant.unmake() is True
    assert not await tenant.is_there()
    assert await tenant.unmake() is False
    assert tenant.saw == ["made"]


async def test_a_step_that_never_happened_is_taken_back_for_ever(application: Application) -> None:
    tenant = Tenant(application)
    assert await tenant.unmake() is False
    with pytest.raises(ApplicationError) as caught:
        await tenant.make()
    assert (caught.value.type, caught.value.non_retryable) == ("StepTaken", True)
    assert not await tenant.is_there()


async def test_undoing_waits_for_a_step_that_still_runs(application: Application, application_database: str) -> None:
    tenant = Tenant(application)
    tenant.may_commit = anyio.Event()
    undone: list[bool] = []

    async def unmake() -> None:
        undone.append(await tenant.unmake())

    async def waiting() -> int:
        [row] = await fetch(application_database, WAITS)
        return row["count"]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tenant.make)
        await eventually(lambda: fetch(application_database, IN_A_TRANSACTION), bool)
        tasks.start_soon(unmake)
        await eventually(waiting, bool)
        assert undone == []
        tenant.may_commit.set()
    assert undone == [True]
    assert not await tenant.is_there()


IN_A_TRANSACTION = """
select from pg_locks l join pg_database d on d.oid = l.database
where d.datname = current_database() and l.relation = 'app.tenant'::regclass and l.mode = 'RowExclusiveLock'
"""


async def test_another_tenant_s_step_is_none_of_our_business(application: Application) -> None:
    tenant = Tenant(application)
    await tenant.make()
    assert await tenant.unmake(uuid4()) is False
    assert await tenant.is_there()


async def test_refused_undoing_changes_nothing_and_can_be_tried_again(
    application: Application, application_database: str
) -> None:
    tenant = Tenant(application)
    await tenant.make()
    await fetch(application_database, "insert into app.company (tenant_id, name) values ($1, 'Acme')", tenant.tenant_id)
    with pytest.raises(DatabaseRefused, match="foreign key"):
        await tenant.unmake()
    await fetch(application_database, "delete from app.company")
    assert await tenant.unmake() is True
