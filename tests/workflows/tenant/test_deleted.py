"""A deleted tenant gets no rows again: work for it came before the deletion, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from outbox_workflows.organization.dns import FileDns
from outbox_workflows.organization.types import Bootstrap
from outbox_workflows.shared.database import Application
from outbox_workflows.shared.mail import Mailer
from outbox_workflows.shared.saga_types import SagaProgress
from outbox_workflows.worker.families import FAMILIES, Ports, collect
from tests.support.eventually import eventually
from tests.support.running import fetch
from tests.support.stage import Family, Stage
from tests.workflows.approval.scenarios import ALICE, begin, command
from tests.workflows.tenant.scenarios import create, failure, rows, turn

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

pytestmark = pytest.mark.timeout(90)
TENANT = "insert into app.tenant (tenant_id, name, status) values ($1, 'Acme', $2)"
ROW = "insert into app.organization (organization_id, tenant_id, workflow_id, name) values ($1, $2, 'w', 'Acme')"
WAITS = "select from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0"
KEPT = "select t from (select organization_id::text as t from app.organization union all select approval_id from app.approval) k"


@pytest.fixture
def all_families(stage: Stage, tmp_path: Path) -> Stage:
    """The stage with workers that carry out every family."""

    def activities(application: Application, mailer: Mailer) -> list[Callable[..., Any]]:
        return collect(FAMILIES, application, Ports(mailer, FileDns(tmp_path / "dns")))[1]

    workflows = [each for family in FAMILIES.values() for each in family.workflows]
    return replace(stage, family=Family(workflows, activities))


async def as_activity(application: Application, stage: Stage, work: Callable[[Connection], Any]) -> None:
    """Take work as the only step of a workflow."""
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_id=f"w-{uuid4()}")

    async def run() -> None:
        await application.once(stage.tenant_id, type(None), work)

    await environment.run(run)


async def test_a_deletion_waits_for_steps_that_have_begun_and_deletes_what_they_made(stage: Stage) -> None:
    await fetch(stage.dsn, TENANT, stage.tenant_id, "active")
    begun, may_commit = anyio.Event(), anyio.Event()

    async def work(connection: Connection) -> None:
        await connection.execute(ROW, uuid4(), stage.tenant_id)
        begun.set()
        await may_commit.wait()

    async with stage.worker(), anyio.create_task_group() as tasks:
        tasks.start_soon(as_activity, stage.application, stage, work)
        await begun.wait()
        handle = await turn(stage, "TenantDeletion")
        await eventually(lambda: fetch(stage.dsn, WAITS), bool)
        may_commit.set()
        assert (await handle.result())["rows"] == {"app.organization": 1}
    assert await fetch(stage.dsn, KEPT) == []


async def test_a_step_that_comes_after_a_deletion_is_refused_for_good_and_leaves_nothing(stage: Stage) -> None:
    await fetch(stage.dsn, TENANT, stage.tenant_id, "deleted")

    async def work(connection: Connection) -> None:
        await connection.execute(ROW, uuid4(), stage.tenant_id)

    with pytest.raises(ApplicationError, match=f"^TenantDeleted: tenant {stage.tenant_id} is deleted: ") as caught:
        await as_activity(stage.application, stage, work)
    assert (caught.value.type, caught.value.non_retryable) == ("TenantDeleted", True)
    assert await fetch(stage.dsn, KEPT) == []
    assert await fetch(stage.dsn, "select from app.step") == []


async def test_an_approval_that_outlives_its_tenant_writes_no_row(all_families: Stage) -> None:
    stage = all_families
    await fetch(stage.dsn, TENANT, stage.tenant_id, "active")
    async with stage.worker():
        approval = await begin(stage)
        await eventually(lambda: fetch(stage.dsn, KEPT), bool)
        await (await turn(stage, "TenantDeletion")).result()
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await approval.execute_update("approve", command(ALICE))
        with pytest.raises(WorkflowFailureError, match="failed"):
            await approval.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "ApprovalFailed"
    assert f"tenant {stage.tenant_id} is deleted" in caught.value.cause.message
    assert await fetch(stage.dsn, KEPT) == []


async def test_a_bootstrap_that_outlives_its_tenant_undoes_itself_and_writes_no_row(
    all_families: Stage, tmp_path: Path
) -> None:
    stage = all_families
    await fetch(stage.dsn, TENANT, stage.tenant_id, "deleted")
    bootstrap = Bootstrap(str(uuid4()), str(stage.tenant_id), "s", "Acme", "acme")
    await fetch(stage.dsn, "insert into app.step values ($1, $2, 'announce', 'organization.announce', 'null')",
                stage.tenant_id, f"org-{bootstrap.organization_id}")  # fmt: skip  # it was under way
    async with stage.worker():
        handle = await stage.start("OrganizationBootstrap", f"org-{bootstrap.organization_id}", bootstrap)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        progress = await handle.query("progress", result_type=SagaProgress)
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "TenantDeleted"
    assert (progress.status, progress.step) == ("undone", "configure-dns")
    assert progress.undone == ["configure-dns", "announce"]
    assert list(tmp_path.rglob("*.zone")) == []
    assert await fetch(stage.dsn, KEPT) == []


async def test_a_deleted_tenant_s_id_stays_taken(stage: Stage) -> None:
    await fetch(stage.dsn, TENANT, stage.tenant_id, "deleted")
    async with stage.worker():
        assert (await failure(await create(stage))).type == "TenantDeleted"
    assert set(await rows(stage)) == {"tenant"}
