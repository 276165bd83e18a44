"""A tenant is suspended, reactivated and deleted; a deletion can be taken back until its grace period is over."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import CancelledError

from outbox_workflows.shared.saga_types import Cancel, SagaProgress
from outbox_workflows.tenant.types import Deleted, TenantOrder, Turned
from tests.support.eventually import eventually
from tests.support.running import fetch
from tests.support.stage import Stage
from tests.workflows.tenant.scenarios import TABLES, HeldStep, created, ended, failure, neighbour, rows, turn

pytestmark = pytest.mark.timeout(90)
CANCEL = Cancel("cancel-1", "ops", "paid")
LONG_S = 3600.0


async def status(stage: Stage) -> str:
    return str((await rows(stage))["tenant"][0]["status"])


async def in_grace(stage: Stage) -> WorkflowHandle[Any, Any]:
    handle = await turn(stage, "TenantDeletion", grace_s=LONG_S)

    async def done() -> list[str]:
        return (await handle.query("progress", result_type=SagaProgress)).done

    await eventually(done, lambda steps: steps == ["close"])
    assert await status(stage) == "suspended"
    return handle


async def test_suspending_and_reactivating_a_tenant_enqueues_events(stage: Stage) -> None:
    await created(stage)
    tenant_id = str(stage.tenant_id)
    async with stage.worker():
        first = await turn(stage, "TenantSuspension")
        assert Turned(**await first.result()) == Turned(tenant_id, "suspended", "active")
        again = await (await turn(stage, "TenantSuspension")).result()
        assert Turned(**again) == Turned(tenant_id, "suspended", "suspended")
        back = await (await turn(stage, "TenantReactivation")).result()
        assert Turned(**back) == Turned(tenant_id, "active", "suspended")
    heard = await stage.heard("tenant.reactivated")
    assert [event["type"] for event in heard] == ["tenant.created", "tenant.suspended", "tenant.reactivated"]
    assert heard[1]["reason"] == "unpaid"
    assert await stage.audited(first.id) == ["tenant suspended"]


@pytest.mark.parametrize("workflow", ["TenantSuspension", "TenantReactivation", "TenantDeletion"])
async def test_a_tenant_that_is_not_there_cannot_be_turned(stage: Stage, workflow: str) -> None:
    async with stage.worker():
        assert (await failure(await turn(stage, workflow))).type == "UnknownTenant"
        for request in (
            TenantOrder("42"),
            {"tenant_id": 42},
            {"tenant_id": str(uuid4()), "patience": {"step_s": 1e300}},
        ):
            handle = await stage.start(workflow, f"unknown-{uuid4()}", request)
            assert (await failure(handle)).type == "InvalidRequest"


@pytest.mark.parametrize("workflow", ["TenantSuspension", "TenantReactivation", "TenantDeletion"])
async def test_a_tenant_that_is_being_created_is_left_alone(stage: Stage, workflow: str) -> None:
    await fetch(stage.dsn, "insert into app.tenant (tenant_id, name) values ($1, 'Acme')", stage.tenant_id)
    async with stage.worker():
        error = await failure(await turn(stage, workflow))
    assert error.type == "WrongStatus"
    assert "the tenant is creating" in error.message
    assert await status(stage) == "creating"


async def test_a_deletion_removes_what_the_tenant_has_in_any_table_and_nothing_of_others(stage: Stage) -> None:
    await created(stage)
    other = await neighbour(stage)
    before = await rows(stage, other)
    await fetch(
        stage.dsn,
        """
        do $$ begin
            create table app.invoice (tenant_id uuid, company_id uuid, line integer,
                foreign key (tenant_id, company_id) references app.company (tenant_id, company_id));
            perform app.isolate('app.invoice');
        end $$
        """,
    )
    await fetch(
        stage.dsn,
        """
        insert into app.invoice select c.tenant_id, c.company_id, line
        from app.company c, generate_series(1, 1500) as line where c.tenant_id = $1
        """,
        stage.tenant_id,
    )
    async with stage.worker():
        handle = await turn(stage, "TenantDeletion")
        result = await handle.result()
    tables = {"company": 1, "app_user": 1, "user_role": 1, "role": 3, "status": 8, "billing_plan": 1, "preference": 2}
    counted = {f"app.{table}": count for table, count in tables.items()}
    assert Deleted(**result) == Deleted("deleted", str(stage.tenant_id), counted | {"app.invoice": 1500})
    [row] = (await rows(stage))["tenant"]
    assert (row["status"], row["name"]) == ("deleted", "deleted")
    assert set(await rows(stage)) == {"tenant"}
    assert await fetch(stage.dsn, "select from app.invoice") == []
    assert await rows(stage, other) == before
    trail = await stage.audited(handle.id)
    assert trail[:2] + trail[-1:] == ["deletion begun", "tenant condemned", "tenant deleted"]
    assert trail.count("rows deleted") == len(tables) + 2
    assert (await stage.heard("tenant.deleted"))[-1]["type"] == "tenant.deleted"


@pytest.mark.parametrize("was", ["active", "suspended"])
@pytest.mark.parametrize("way", ["update", "signal", "temporal"])
async def test_a_deletion_cancelled_in_its_grace_period_leaves_the_tenant_as_it_was(
    stage: Stage, way: str, was: str
) -> None:
    await created(stage)
    async with stage.worker():
        if was == "suspended":
            await ended(await turn(stage, "TenantSuspension"))
        before = await rows(stage)
        handle = await in_grace(stage)
        if way == "temporal":
            await stage.cancel(handle.id)
            with pytest.raises(WorkflowFailureError) as caught:
                await handle.result()
            assert isinstance(caught.value.cause, CancelledError)
        else:
            if way == "update":
                await handle.execute_update("cancel", CANCEL)
            else:
                await stage.signal(handle.id, "cancel", CANCEL)
            assert Deleted(**await handle.result()) == Deleted("cancelled", str(stage.tenant_id))
    after = await rows(stage)
    assert await status(stage) == was
    assert {table: after[table] for table in TABLES[1:]} == {table: before[table] for table in TABLES[1:]}
    assert await stage.audited(handle.id) == ["deletion begun", "deletion given up"]


async def test_once_the_grace_period_is_over_a_deletion_goes_to_its_end(stage: Stage) -> None:
    await created(stage)
    gate = HeldStep("delete-rows", "before")
    async with stage.worker(gate):
        handle = await turn(stage, "TenantDeletion")
        await gate.wait_reached()
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("cancel", CANCEL)
        assert caught.value.cause.type == "TooLate"
        await stage.cancel(handle.id)
        gate.open()
        assert (await handle.result())["status"] == "deleted"


async def test_a_tenant_that_is_reactivated_in_the_grace_period_is_not_deleted(stage: Stage) -> None:
    await created(stage)
    async with stage.worker():
        handle = await turn(stage, "TenantDeletion", grace_s=6.0)
        await eventually(lambda: status(stage), lambda seen: seen == "suspended")
        await ended(await turn(stage, "TenantReactivation"))
        assert (await failure(handle)).type == "WrongStatus"
    assert await status(stage) == "active"
    assert set(await rows(stage)) == set(TABLES)


async def test_a_grace_period_that_would_never_end_is_refused(stage: Stage) -> None:
    async with stage.worker():
        error = await failure(await turn(stage, "TenantDeletion", grace_s=1e300))
    assert (error.type, error.message) == ("InvalidRequest", "grace_s is no number of seconds from 0 to 3.1536e+08")


@pytest.mark.parametrize("action", ["deletion begun", "tenant condemned"])
async def test_a_deletion_that_fails_before_its_first_row_leaves_the_tenant_active(stage: Stage, action: str) -> None:
    await created(stage)
    await stage.refuse(action)
    async with stage.worker():
        assert (await failure(await turn(stage, "TenantDeletion"))).type == "DatabaseRefused"
    assert await status(stage) == "active"
    assert set(await rows(stage)) == set(TABLES)


async def test_a_deletion_with_refused_rows_is_tried_until_they_are_accepted(stage: Stage) -> None:
    await created(stage)
    await stage.refuse("rows deleted")
    async with stage.worker():
        handle = await turn(stage, "TenantDeletion")

        async def attempts() -> int:
            pending = (await handle.describe()).raw_description.pending_activities
            return max((each.attempt for each in pending), default=0)

        await eventually(attempts, lambda count: count > 1)
        await stage.accept("rows deleted")
        assert (await handle.result())["status"] == "deleted"
    assert set(await rows(stage)) == {"tenant"}
