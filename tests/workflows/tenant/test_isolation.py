"""One tenant cannot read or change another's rows, in any table that a tenant consists of."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from outbox.model.errors import DatabaseRefused
from outbox_workflows.tenant.activities import TenantActivities
from outbox_workflows.tenant.types import Admin, AdminToMake
from tests.support.stage import Stage
from tests.workflows.tenant.scenarios import HASH, TABLES, created, neighbour, rows

INSERTS = {
    "company": "(tenant_id, name) values ($1, 'x')",
    "app_user": "(tenant_id, email, password_hash) values ($1, 'a@b.example', '$2b$12$x')",
    "role": "(tenant_id, name) values ($1, 'x')",
    "status": "(tenant_id, kind, name, place) values ($1, 'x', 'x', 1)",
    "billing_plan": "(tenant_id, name) values ($1, 'x')",
    "preference": "(tenant_id, name, value) values ($1, 'x', 'x')",
}


async def test_a_tenant_sees_and_changes_nothing_of_another(stage: Stage) -> None:
    await created(stage)
    other = await neighbour(stage)
    before = await rows(stage)
    async with stage.application.as_tenant(other) as connection:
        for table in reversed(TABLES):
            seen = await connection.fetch(f"select tenant_id from app.{table}")
            assert {row["tenant_id"] for row in seen} == {other}, table
            assert (
                await connection.execute(f"delete from app.{table} where tenant_id = $1", stage.tenant_id) == "DELETE 0"
            )
            changed = await connection.execute(
                f"update app.{table} set tenant_id = tenant_id where tenant_id = $1", stage.tenant_id
            )
            assert changed == "UPDATE 0"
    assert await rows(stage) == before


@pytest.mark.parametrize("table", INSERTS)
async def test_a_tenant_puts_nothing_into_another(stage: Stage, table: str) -> None:
    other = await neighbour(stage)
    with pytest.raises(DatabaseRefused, match="row-level security"):
        async with stage.application.as_tenant(uuid4()) as connection:
            await connection.execute(f"insert into app.{table} {INSERTS[table]}", other)


async def test_a_user_cannot_be_given_another_tenant_s_role(stage: Stage) -> None:
    await created(stage)
    other = await neighbour(stage)
    [role] = (await rows(stage, other))["role"]
    [user] = (await rows(stage))["app_user"]
    with pytest.raises(DatabaseRefused, match="foreign key"):
        async with stage.application.as_tenant(stage.tenant_id) as connection:
            await connection.execute(
                "insert into app.user_role values ($1, $2, $3)", stage.tenant_id, user["user_id"], role["role_id"]
            )


async def test_a_user_with_a_taken_e_mail_address_is_refused_for_good(stage: Stage) -> None:
    await created(stage)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, activity_id="again", activity_type="create_admin_user")
    order = AdminToMake(str(stage.tenant_id), Admin("Ada@Acme.example", password_hash=HASH), "sales")
    with pytest.raises(ApplicationError) as caught:
        await environment.run(TenantActivities(stage.application).create_admin_user, order)
    assert (caught.value.type, caught.value.non_retryable) == ("EmailTaken", True)
    assert len((await rows(stage))["app_user"]) == 1


async def test_an_e_mail_address_is_unique_in_a_tenant_in_any_case(stage: Stage) -> None:
    await created(stage)
    with pytest.raises(DatabaseRefused, match="app_user_email"):
        async with stage.application.as_tenant(stage.tenant_id) as connection:
            await connection.execute(f"insert into app.app_user {INSERTS['app_user']}", stage.tenant_id)
            await connection.execute(
                f"insert into app.app_user {INSERTS['app_user']}".replace("a@b", "A@B"), stage.tenant_id
            )
