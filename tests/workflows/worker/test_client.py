"""From an application's transaction to the workflow's answer, through the relay and a workflow worker of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from outbox_temporal.sink import temporal_sink
from outbox_workflows.approval.types import ApprovalCommand, EscalatingRequest, SimpleRequest
from outbox_workflows.client import CommandRefused, Workflows, WorkflowUnknown
from outbox_workflows.organization.types import Bootstrap
from outbox_workflows.tenant.passwords import hashed_password
from outbox_workflows.tenant.types import Admin, DeletionOrder, NewTenant
from tests.support.processes import workflow_worker_process
from tests.support.running import Running, fetch, running
from tests.support.shared import SharedServer
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(120)
ROUTES = Path(__file__).parents[3] / "workflows" / "outbox_workflows" / "outbox.toml"


@pytest.fixture
async def relay(
    application_database: str, temporal_server: SharedServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    monkeypatch.setenv("OUTBOX_ROUTES", str(ROUTES))
    async with running(application_database, factory=temporal_sink) as relay:
        yield relay


@pytest.fixture
def workflows(temporal_client: Client, task_queue: str) -> Workflows:
    return Workflows(temporal_client, task_queue=task_queue)


async def test_families_are_started_asked_and_reported(
    relay: Running, workflows: Workflows, surroundings: dict[str, str], application_database: str, tmp_path: Path
) -> None:
    tenant_id, organization_id = str(uuid4()), str(uuid4())
    admin = Admin("ada@acme.example", "Ada", "Admin", password_hash=hashed_password("correct horse"))
    request = EscalatingRequest(
        tenant_id=tenant_id,
        approval_id="7",
        subject="A new laptop",
        requested_by="rita@acme.example",
        approvers=["alice@acme.example", "bob@acme.example"],
    )
    with workflow_worker_process(tmp_path, "workflows", **surroundings) as worker:
        await worker.logged("workflow worker started")
        async with connected(application_database) as application, application.transaction():
            await workflows.approvals.escalating(application, request)
            await workflows.tenants.create(application, NewTenant(tenant_id, "Acme", admin, company_name="Acme Corp"))
        creation = await workflows.tenants.creation_of(tenant_id).started()
        assert (await creation.result()).status == "created"
        assert (await creation.progress()).percent == 100

        approval = await workflows.approvals.of(tenant_id, "7").started()
        assert (await approval.standing()).approver == "alice@acme.example"
        standing = await approval.approve(ApprovalCommand("c1", actor="alice@acme.example"))
        assert (standing.state, standing.decided_by) == ("approved", "alice@acme.example")
        assert await approval.approve(ApprovalCommand("c1", actor="alice@acme.example")) == standing, (
            "answered as before"
        )
        with pytest.raises((CommandRefused, WorkflowUnknown)):
            await approval.reject(ApprovalCommand("c2", actor="bob@acme.example"))
        assert (await approval.result()).state == "approved"

        bootstrap = Bootstrap(organization_id, tenant_id, f"organization-{organization_id}", "Acme Ltd", "acme")
        await workflows.organizations.bootstrap.directly(bootstrap)
        assert (await workflows.organizations.of(organization_id).result()).organization_id == organization_id
        with pytest.raises(WorkflowAlreadyStartedError):
            await workflows.organizations.bootstrap.directly(bootstrap)
        assert (await workflows.organizations.of(organization_id).progress()).status == "done"

        health = await workflows.health()
        assert (health.well, health.workers, health.fault) == (True, 1, None)
        assert worker.stop() == 0
        assert worker.lines("workflow worker drained")
    assert await fetch(application_database, "select from outbox.dead_letter") == []


async def test_a_refused_command_names_the_refusal(
    relay: Running, workflows: Workflows, surroundings: dict[str, str], application_database: str, tmp_path: Path
) -> None:
    request = SimpleRequest(
        tenant_id=str(uuid4()), approval_id="1", subject="x", requested_by="rita@a.example", approver="al@a.example"
    )
    with workflow_worker_process(tmp_path, "workflows", **surroundings) as worker:
        await worker.logged("workflow worker started")
        async with connected(application_database) as application:
            await workflows.approvals.simple(application, request)
        approval = await workflows.approvals.of(request.tenant_id, "1").started()
        with pytest.raises(CommandRefused, match="turn") as refused:
            await approval.approve(ApprovalCommand("c1", actor="mallory@a.example"))
        assert refused.value.code == "NotYourTurn"


async def test_a_start_that_is_rolled_back_never_was(
    relay: Running, workflows: Workflows, application_database: str
) -> None:
    tenant_id = str(uuid4())
    request = SimpleRequest(tenant_id=tenant_id, approval_id="1", subject="x", requested_by="r", approver="a")
    async with connected(application_database) as application:
        with pytest.raises(ZeroDivisionError):
            async with application.transaction():
                await workflows.approvals.simple(application, request)
                raise ZeroDivisionError
        kept = await workflows.approvals.simple(application, replace(request, approval_id="2"))
    await relay.log.wait_until(lambda: kept in relay.completed, what="the delivery of the other")
    with pytest.raises(WorkflowUnknown, match=f"approval-{tenant_id}-1"):
        await workflows.approvals.of(tenant_id, "1").started(within_s=0)


async def test_an_id_that_is_used_up_is_reported_and_another_may_be_named(
    relay: Running, workflows: Workflows, application_database: str
) -> None:
    order = DeletionOrder(str(uuid4()), grace_s=60)
    async with connected(application_database) as application:
        await workflows.tenants.delete(application, order)
        first = await workflows.tenants.deletion_of(order.tenant_id).started()
        await first.handle.terminate()
        await workflows.tenants.delete(application, order)
        buried = await relay.wait_buried()
        await workflows.tenants.delete(application, order, workflow_id=f"second-{order.tenant_id}")
        again = workflows.tenants.deletion_of(order.tenant_id, workflow_id=f"second-{order.tenant_id}")
        await again.started()
    assert buried.reason == "rejected"
    assert f"workflow id 'tenant-deletion-{order.tenant_id}' belongs to another start" in str(buried.outcome)
    with pytest.raises(WorkflowAlreadyStartedError):
        await workflows.tenants.delete.directly(order)


WRONG = Bootstrap(str(uuid4()), str(uuid4()), "s", "Acme", "Acme.Ltd", ["ada@example.org", 7])  # type: ignore[list-item]


async def test_a_bootstrap_is_checked_as_its_event_would_be(workflows: Workflows, application_database: str) -> None:
    async with connected(application_database) as application:
        with pytest.raises(ValueError, match=r"^invitations\[1\] must be a text, not a number$"):
            await workflows.organizations.bootstrap(application, WRONG)
        with pytest.raises(ValueError, match="^subdomain must be one DNS label in lower case$"):
            await workflows.organizations.bootstrap.directly(replace(WRONG, invitations=[]))
    assert await fetch(application_database, "select from outbox.message") == []


async def test_what_could_never_be_created_is_not_even_written_down(
    workflows: Workflows, application_database: str
) -> None:
    plain = NewTenant(str(uuid4()), "Acme", Admin("ada@acme.example", password_hash="correct horse"))
    async with connected(application_database) as application:
        with pytest.raises(ValueError, match="password_hash") as refused:
            await workflows.tenants.create(application, plain)
        assert "correct horse" not in str(refused.value)
    assert await fetch(application_database, "select from outbox.message") == []


async def test_health_says_that_there_is_no_worker(workflows: Workflows, task_queue: str) -> None:
    health = await workflows.health()
    assert (health.well, health.workers) == (False, 0)
    assert health.fault == f"no worker polls the task queue '{task_queue}': run `outbox workflows run`"


async def test_health_says_that_temporal_is_away() -> None:
    away = Workflows(await Client.connect("127.0.0.1:1", lazy=True))
    health = await away.health()
    assert not health.well
    assert str(health.fault).startswith("Temporal does not answer: ")


async def test_sync_connections_start_workflows_too(workflows: Workflows, application_database: str) -> None:
    psycopg = pytest.importorskip("psycopg", reason="psycopg is a development dependency")
    request = SimpleRequest(tenant_id=str(uuid4()), approval_id="1", subject="x", requested_by="r", approver="a")
    with psycopg.connect(application_database) as application:
        message_id = workflows.approvals.simple(application, request)
    [row] = await fetch(
        application_database, "select message_id, target ->> 'workflow' as workflow from outbox.message"
    )
    assert (row["message_id"], row["workflow"]) == (message_id, "Approval")
    assert isinstance(row, asyncpg.Record)
