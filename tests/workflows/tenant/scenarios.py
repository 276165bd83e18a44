"""The branches of the tenant's workflows, each played to its end, for the golden histories and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from outbox_workflows.shared.saga_types import Cancel, SagaTimeouts
from outbox_workflows.tenant.activities import TenantActivities
from outbox_workflows.tenant.definitions import WORKFLOWS
from outbox_workflows.tenant.types import Admin, Change, DeletionOrder, NewTenant
from tests.support.running import fetch
from tests.support.stage import Family, Scenarios, Stage
from tests.support.steps import Gate, Moment

FAMILY = Family(WORKFLOWS, lambda application, _mailer: TenantActivities(application).all())
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$" + "q80" * 14 + "A"
TABLES = ("tenant", "company", "app_user", "role", "user_role", "status", "billing_plan", "preference")
BEAT_S = 0.05
QUICK = SagaTimeouts(heartbeat_s=1.0)
IMPATIENT = replace(QUICK, undo_s=4.0)


class HeldStep(Gate):
    """A gate at which the activity shows that it lives, and so learns of its cancellation."""

    async def stand(self) -> None:
        self.reached.set()
        while not self._open.is_set():
            activity.heartbeat()
            with anyio.move_on_after(BEAT_S):
                await self._open.wait()


def new_tenant(stage: Stage, **chosen: Any) -> NewTenant:
    """A request for the stage's tenant."""
    admin = Admin("ada@acme.example", "Ada", "Admin", HASH)
    usual: dict[str, Any] = {"company_name": "Acme Corp", "billing_plan": "Enterprise", "requested_by": "sales"}
    usual |= {"tenant_id": str(stage.tenant_id), "name": "Acme", "admin": admin, "patience": QUICK}
    return NewTenant(**(usual | chosen))


def order(stage: Stage, **chosen: Any) -> DeletionOrder:
    """An order for the stage's tenant, of any kind."""
    return DeletionOrder(str(stage.tenant_id), requested_by="ops", reason="unpaid", **({"patience": QUICK} | chosen))


async def create(stage: Stage, **chosen: Any) -> WorkflowHandle[Any, Any]:
    """Commit a request for the stage's tenant, and return once it is delivered."""
    return await stage.start("TenantCreation", f"creation-{uuid4()}", new_tenant(stage, **chosen))


async def turn(stage: Stage, workflow: str, **chosen: Any) -> WorkflowHandle[Any, Any]:
    """Commit an order to one of the other workflows, and return once it is delivered."""
    return await stage.start(workflow, f"{workflow}-{uuid4()}", order(stage, **chosen))


async def created(stage: Stage) -> None:
    """Have the stage's tenant created, by a worker of its own."""
    async with stage.worker():
        await (await create(stage)).result()


async def ended(handle: WorkflowHandle[Any, Any]) -> str:
    """The workflow's id, once it has ended, however."""
    with suppress(WorkflowFailureError):
        await handle.result()
    return handle.id


async def failure(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    """How a workflow failed that has to."""
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError), caught.value.cause
    return caught.value.cause


async def rows(stage: Stage, tenant_id: UUID | None = None) -> dict[str, list[dict[str, Any]]]:
    """What is left of a tenant by table, without tables that hold nothing of it."""
    owner = tenant_id or stage.tenant_id
    found = {}
    for table in TABLES:
        lines = await fetch(stage.dsn, f"select * from app.{table} t where tenant_id = $1 order by t::text", owner)
        if lines:
            found[table] = [dict(line) for line in lines]
    return found


async def neighbour(stage: Stage) -> UUID:
    """Another tenant, with a row in each table and the same names and addresses."""
    other = uuid4()
    await fetch(
        stage.dsn,
        """
        with t as (insert into app.tenant (tenant_id, name, status) values ($1, 'Acme', 'active')),
        c as (insert into app.company (tenant_id, name, is_default) values ($1, 'Acme Corp', true)),
        u as (insert into app.app_user (tenant_id, email, password_hash) values ($1, 'ada@acme.example', $2)
              returning user_id),
        r as (insert into app.role (tenant_id, name) values ($1, 'Admin') returning role_id),
        s as (insert into app.status (tenant_id, kind, name, place) values ($1, 'ticket', 'Open', 1)),
        b as (insert into app.billing_plan (tenant_id, name) values ($1, 'Enterprise')),
        p as (insert into app.preference (tenant_id, name, value) values ($1, 'language', 'en'))
        insert into app.user_role (tenant_id, user_id, role_id) select $1, user_id, role_id from u, r
        """,
        other,
        HASH,
    )
    assert set(await rows(stage, other)) == set(TABLES)
    return other


@asynccontextmanager
async def _held(
    stage: Stage, step: str, moment: Moment = "before"
) -> AsyncIterator[tuple[WorkflowHandle[Any, Any], HeldStep]]:
    """A creation that stands in a step, and the gate at which it does."""
    gate = HeldStep(step, moment)
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        yield handle, gate
        gate.open()
        await ended(handle)


async def _changed(stage: Stage) -> str:
    async with _held(stage, "create-tenant") as (handle, _):
        await handle.execute_update("change", Change("change-1", billing_plan="Basic"))
        await stage.signal(handle.id, "change", Change("change-2", company_name="too late"))
    return handle.id


async def _unreadable(stage: Stage) -> str:
    async with _held(stage, "validate") as (handle, _):
        await stage.signal(handle.id, "cancel", {"command_id": 5})
    return handle.id


async def _cancelled_by_a_command(stage: Stage) -> str:
    async with _held(stage, "create-admin-user", "after") as (handle, _):
        await handle.execute_update("cancel", Cancel("cancel-1", "ops", "changed their mind"))
        await ended(handle)
    return handle.id


async def _cancelled_by_temporal(stage: Stage) -> str:
    async with _held(stage, "create-admin-user") as (handle, _):
        await stage.cancel(handle.id)
        await ended(handle)
    return handle.id


async def _cancelled_too_late(stage: Stage) -> str:
    async with _held(stage, "complete") as (handle, _):
        await stage.cancel(handle.id)
        await stage.signal(handle.id, "cancel", Cancel("cancel-1"))
    return handle.id


async def _invalid(stage: Stage) -> str:
    async with stage.worker():
        return await ended(await stage.start("TenantCreation", f"creation-{uuid4()}", {"name": 7}))


async def _created(stage: Stage, **chosen: Any) -> str:
    async with stage.worker():
        return await ended(await create(stage, **chosen))


async def _rejected(stage: Stage) -> str:
    await created(stage)
    return await _created(stage)


async def _refused(stage: Stage, *actions: str, **chosen: Any) -> str:
    """A creation during which the database refuses these audit entries."""
    for action in actions:
        await stage.refuse(action)
    ending = await _created(stage, **chosen)
    for action in actions:
        await stage.accept(action)
    return ending


async def _undone(stage: Stage) -> str:
    return await _refused(stage, "initial data set up")


async def _not_undone(stage: Stage) -> str:
    return await _refused(stage, "initial data set up", "admin user removed", patience=IMPATIENT)


async def _turned(stage: Stage, *workflows: str, **chosen: Any) -> str:
    """The last of these workflows, one after the other."""
    async with stage.worker():
        endings = [await ended(await turn(stage, workflow, **chosen)) for workflow in workflows]
    return endings[-1]


async def _deleted(stage: Stage) -> str:
    await created(stage)
    return await _turned(stage, "TenantDeletion", grace_s=0.1)


async def _deletion_cancelled(stage: Stage) -> str:
    await created(stage)
    async with stage.worker():
        handle = await turn(stage, "TenantDeletion", grace_s=3600.0)
        await stage.signal(handle.id, "cancel", Cancel("cancel-1", "ops", "paid"))
        return await ended(handle)


async def _deletion_refused(stage: Stage) -> str:
    return await _turned(stage, "TenantDeletion")


async def _suspended(stage: Stage) -> str:
    await created(stage)
    return await _turned(stage, "TenantSuspension")


async def _reactivated(stage: Stage) -> str:
    await created(stage)
    return await _turned(stage, "TenantSuspension", "TenantReactivation")


SCENARIOS: Scenarios = {
    "creation-created": _created,
    "creation-changed": _changed,
    "creation-rejected": _rejected,
    "creation-invalid": _invalid,
    "creation-unreadable-command": _unreadable,
    "creation-undone": _undone,
    "creation-not-undone": _not_undone,
    "creation-cancelled-by-a-command": _cancelled_by_a_command,
    "creation-cancelled-by-temporal": _cancelled_by_temporal,
    "creation-cancelled-too-late": _cancelled_too_late,
    "deletion-deleted": _deleted,
    "deletion-cancelled": _deletion_cancelled,
    "deletion-refused": _deletion_refused,
    "suspension-suspended": _suspended,
    "reactivation-reactivated": _reactivated,
}
