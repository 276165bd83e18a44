"""What approvals do outside of Temporal: write each step down, and send mails about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from outbox_workflows.approval.mails import text_about, title_of
from outbox_workflows.approval.types import ApprovalStep, Letter
from outbox_workflows.shared.database import Application
from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.mail import Mail, Mailer

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_KEEP = """
insert into app.approval as kept
    (tenant_id, approval_id, workflow_id, subject, requested_by, state, level, approver, delegate, deadline, reminders,
     decided_by, decided_at, comment, revision)
values (app.current_tenant(), $1, $2, $3, $4, $5, $6, $7, nullif($8, ''), $9, $10, nullif($11, ''), $12,
        nullif($13, ''), $14)
on conflict (tenant_id, approval_id) do update set
    state = excluded.state, level = excluded.level, approver = excluded.approver, delegate = excluded.delegate,
    deadline = excluded.deadline, reminders = excluded.reminders, decided_by = excluded.decided_by,
    decided_at = excluded.decided_at, comment = excluded.comment, revision = excluded.revision, changed_at = now()
where kept.workflow_id = excluded.workflow_id and kept.revision < excluded.revision
returning true
"""


class ApprovalActivities:
    """The activities of both approvals, on one application and one mailer."""

    def __init__(self, application: Application, mailer: Mailer) -> None:
        self._application, self._mailer = application, mailer

    def all(self) -> list[Callable[..., Any]]:
        """What a worker has to register."""
        return [self.record, self.mail]

    @activity.defn(name="approval.record")
    async def record(self, step: ApprovalStep) -> None:
        """Bring the row to the approval's state, and add the audit entry and the event: together, and once.

        Raises ApplicationError of type ApprovalTaken when the row is another workflow's.
        """

        async def work(connection: Connection) -> None:
            await _keep(connection, step)
            await audit(connection, step.actor, step.action, step.detail)
            about = {"approval_id": step.approval_id, "actor": step.actor, **asdict(step.standing), **step.detail}
            await emit(connection, f"approval-{step.approval_id}", f"approval.{step.action}", about)

        await self._application.once(UUID(step.tenant_id), type(None), work)

    @activity.defn(name="approval.mail")
    async def mail(self, letter: Letter) -> None:
        """Send a mail, at least once and under the same id, and add the audit entry, once."""
        step = letter.step
        mail_id = f"{step.tenant_id}.{step.approval_id}.{letter.name}"
        await self._mailer.send(Mail(mail_id, letter.to, title_of(step), text_about(step)))

        async def work(connection: Connection) -> None:
            await audit(connection, "system", "mailed", {"to": letter.to, "about": step.name})

        await self._application.once(UUID(step.tenant_id), type(None), work)


async def _keep(connection: Connection, step: ApprovalStep) -> None:
    """Insert or update the row."""
    standing, workflow_id = step.standing, activity.info().workflow_id
    kept = await connection.fetchval(
        _KEEP,
        step.approval_id,
        workflow_id,
        step.subject,
        step.requested_by,
        standing.state,
        standing.level,
        standing.approver,
        standing.delegate,
        standing.deadline,
        standing.reminders,
        standing.decided_by,
        standing.decided_at,
        standing.comment,
        standing.revision,
    )
    if kept is None:
        raise ApplicationError(
            f"approval {step.approval_id!r} is another workflow's: give each request an id of its own",
            type="ApprovalTaken",
            non_retryable=True,
        )
