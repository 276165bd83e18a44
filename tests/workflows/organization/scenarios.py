"""One scenario for each branch of the bootstrap, for `tests/support/tools/histories.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import WorkflowFailureError

from outbox_workflows.organization.activities import OrganizationActivities
from outbox_workflows.organization.definitions import WORKFLOWS
from outbox_workflows.organization.dns import FileDns
from outbox_workflows.shared.database import Application
from outbox_workflows.shared.mail import FileMailer, Mailer
from outbox_workflows.shared.saga_types import Cancel
from tests.support.running import fetch
from tests.support.stage import Family, Stage
from tests.support.steps import Gate


def _dns(mail_folder: Path) -> FileDns:
    return FileDns(mail_folder.parent / "dns", "example.test", "app.example.test")


def _activities(application: Application, mailer: Mailer) -> list[Callable[..., Any]]:
    assert isinstance(mailer, FileMailer)
    return OrganizationActivities(application, mailer, _dns(mailer._folder)).all()


FAMILY = Family(WORKFLOWS, _activities)


async def _started(stage: Stage, **chosen: object) -> str:
    """Start a bootstrap with what its event would have said; return its workflow id."""
    organization_id = str(uuid4())
    argument = {
        "event_id": str(uuid4()),
        "tenant_id": str(stage.tenant_id),
        "stream": f"organization-{organization_id}",
        "organization_id": organization_id,
        "name": "Acme Ltd",
        "subdomain": f"acme-{organization_id[:8]}",
        "invitations": ["ada@example.org", "bob@example.org"],
    }
    workflow_id = f"org-bootstrap-{organization_id}"
    await stage.start("OrganizationBootstrap", workflow_id, argument | chosen)
    return workflow_id


async def _refuse(stage: Stage, *types: str) -> None:
    """Have the database refuse this tenant's events of some types."""
    tenant = stage.tenant_id.hex
    await fetch(
        stage.dsn,
        f"""create function app.refuse_{tenant}() returns trigger language plpgsql as
            $$ begin raise exception 'refused by the database'; end $$""",
    )
    await fetch(
        stage.dsn,
        f"""create trigger refuse_{tenant} before insert on app.event for each row
            when (new.tenant_id = '{stage.tenant_id}' and new.type = any ('{{{",".join(types)}}}')) execute function app.refuse_{tenant}()""",
    )


async def _ended(stage: Stage, workflow_id: str) -> str:
    """Have a worker bring the workflow to its end."""
    async with stage.worker():
        await _outcome(stage, workflow_id)
    return workflow_id


async def _outcome(stage: Stage, workflow_id: str) -> None:
    with suppress(WorkflowFailureError):
        await stage.client.get_workflow_handle(workflow_id).result()


async def completed(stage: Stage) -> str:
    """Everything goes well."""
    workflow_id = await _started(stage)
    async with stage.worker():
        await stage.client.get_workflow_handle(workflow_id).result()
    return workflow_id


async def refused(stage: Stage) -> str:
    """The name is another's: the step has had no effect, and nothing is undone."""
    await _dns(stage.mail_folder).configure("taken", "another")
    return await _ended(stage, await _started(stage, subdomain="taken"))


async def invalid(stage: Stage) -> str:
    """What is asked for cannot be read."""
    return await _ended(stage, await _started(stage, subdomain="no.name", invitations="ada@example.org"))


async def failed(stage: Stage) -> str:
    """The last step fails, and every other is undone."""
    await _refuse(stage, "organization.bootstrap.completed")
    return await _ended(stage, await _started(stage))


async def left(stage: Stage) -> str:
    """A step fails, and one before it cannot be undone."""
    await _refuse(stage, "organization.created", "organization.dns.removed")
    return await _ended(stage, await _started(stage, patience={"undo_s": 2}))


async def cancelled(stage: Stage) -> str:
    """Cancelled while it sends the first of two mails."""
    return await _cancelled(stage, stage.cancel)


async def cancelled_by_a_command(stage: Stage) -> str:
    """The same, by a signal."""
    command = Cancel("5f0c", "ada", "the customer withdrew")
    return await _cancelled(
        stage, lambda workflow_id: stage.client.get_workflow_handle(workflow_id).signal("cancel", command)
    )


async def _cancelled(stage: Stage, cancel: Callable[[str], Awaitable[None]]) -> str:
    workflow_id = await _started(stage)
    gate = Gate("send-invitation-1")
    async with stage.worker(gate):
        await gate.wait_reached()
        await cancel(workflow_id)
        gate.open()
        await _outcome(stage, workflow_id)
    return workflow_id


SCENARIOS = {
    "completed": completed,
    "invalid": invalid,
    "refused": refused,
    "failed": failed,
    "left": left,
    "cancelled": cancelled,
    "cancelled-by-a-command": cancelled_by_a_command,
}
