"""The steps of an organisation's bootstrap. Each emits its event in the transaction that has its effect."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from outbox_workflows.organization.dns import Dns, NameRefused
from outbox_workflows.organization.types import REFUSED, Bootstrap, Ending, Invitation, Sending, Site
from outbox_workflows.shared.database import TENANT_DELETED, Application
from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.mail import Mail, Mailer, MailRefused

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_CREATE = """
insert into app.organization (organization_id, tenant_id, workflow_id, name, domain)
values ($1, app.current_tenant(), $2, $3, $4)
"""
_INVITE = """
insert into app.invitation (tenant_id, organization_id, email, token, token_hash)
values (app.current_tenant(), $1, $2, $3, $4)
returning invitation_id::text
"""
_UNSENT = "select token from app.invitation where invitation_id = $1 and status = 'pending'"
_SENT = """
update app.invitation set status = 'sent', token = null, changed_at = now()
where invitation_id = $1 and status = 'pending'
returning true
"""
_REVOKE = """
update app.invitation set status = 'revoked', token = null, changed_at = now()
where organization_id = $1 and status <> 'revoked'
returning invitation_id::text, email
"""
_ACTIVATE = """
update app.organization set status = 'active', changed_at = now()
where organization_id = $1 and status = 'bootstrapping'
returning true
"""
_NOTE = """
insert into app.organization (organization_id, tenant_id, workflow_id, name)
values ($1, app.current_tenant(), $2, $3)
on conflict (organization_id) do nothing
"""
_END = """
update app.organization set status = $3, reason = $4, changed_at = now()
where organization_id = $1 and workflow_id = $2 and status <> 'active'
"""
_BAR = """
insert into app.step (tenant_id, workflow_id, step, activity) values (app.current_tenant(), $1, $2, 'undone')
on conflict (workflow_id, step) do nothing
"""
T = TypeVar("T")


class OrganizationActivities:
    """The activities of a process. They share its connections."""

    def __init__(self, application: Application, mailer: Mailer, dns: Dns) -> None:
        self._application, self._mailer, self._dns = application, mailer, dns

    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [
            self.announce,
            self.configure_dns,
            self.create,
            self.invite,
            self.send_invitation,
            self.complete,
            self.revoke_invitations,
            self.remove_dns,
            self.conclude,
        ]

    @activity.defn(name="organization.announce")
    async def announce(self, bootstrap: Bootstrap) -> None:
        """Say that the workflow runs."""

        async def work(connection: Connection) -> None:
            await _tell(connection, bootstrap, "organization.bootstrap.workflow_started")

        await self._once(bootstrap, type(None), work)

    @activity.defn(name="organization.configure_dns")
    async def configure_dns(self, bootstrap: Bootstrap) -> str:
        """Have the organisation's name lead to the application; return it."""
        try:
            domain = await self._dns.configure(bootstrap.subdomain, bootstrap.organization_id)
        except NameRefused as error:
            raise ApplicationError(str(error), type=REFUSED, non_retryable=True) from error

        async def work(connection: Connection) -> str:
            await _tell(connection, bootstrap, "organization.dns.configured", domain=domain)
            return domain

        try:
            return await self._once(bootstrap, str, work)
        except ApplicationError as error:
            if error.type == "StepTaken":  # this worker was away for long, and the step is undone meanwhile
                await self._dns.remove(bootstrap.subdomain, bootstrap.organization_id)
            raise

    @activity.defn(name="organization.create")
    async def create(self, site: Site) -> None:
        """Make the organisation."""
        bootstrap = site.bootstrap

        async def work(connection: Connection) -> None:
            await connection.execute(
                _CREATE, UUID(bootstrap.organization_id), _workflow_id(), bootstrap.name, site.domain
            )
            await _tell(connection, bootstrap, "organization.created", name=bootstrap.name, domain=site.domain)

        await self._once(bootstrap, type(None), work)

    @activity.defn(name="organization.invite")
    async def invite(self, site: Site) -> list[Invitation]:
        """Make the invitations, one for each address."""
        bootstrap = site.bootstrap

        async def work(connection: Connection) -> list[Invitation]:
            return [await _invited(connection, bootstrap, email) for email in dict.fromkeys(bootstrap.invitations)]

        return await self._once(bootstrap, list[Invitation], work)

    @activity.defn(name="organization.send_invitation")
    async def send_invitation(self, sending: Sending) -> None:
        """Mail an invitation, under the same Message-ID however often."""
        bootstrap, invitation = sending.site.bootstrap, sending.invitation
        async with self._application.as_tenant(UUID(bootstrap.tenant_id), "read an invitation") as connection:
            token = await connection.fetchval(_UNSENT, UUID(invitation.invitation_id))
        if token is not None:
            try:
                await self._mailer.send(_mail(sending, token))
            except MailRefused as error:
                raise ApplicationError(str(error), type=REFUSED, non_retryable=True) from error

        async def work(connection: Connection) -> None:
            if await connection.fetchval(_SENT, UUID(invitation.invitation_id)):
                await _tell(connection, bootstrap, "organization.invitation.sent", **asdict(invitation))

        await self._once(bootstrap, type(None), work)

    @activity.defn(name="organization.complete")
    async def complete(self, site: Site) -> None:
        """Make the organisation active."""
        bootstrap = site.bootstrap

        async def work(connection: Connection) -> None:
            if not await connection.fetchval(_ACTIVATE, UUID(bootstrap.organization_id)):
                raise ApplicationError("the bootstrap was given up meanwhile", type=REFUSED, non_retryable=True)
            await _tell(connection, bootstrap, "organization.bootstrap.completed", domain=site.domain)

        await self._once(bootstrap, type(None), work)

    @activity.defn(name="organization.revoke_invitations")
    async def revoke_invitations(self, bootstrap: Bootstrap) -> None:
        """Revoke what invitations there are."""

        async def work(connection: Connection) -> None:
            await _bar(connection, "create-invitations")
            for row in await connection.fetch(_REVOKE, UUID(bootstrap.organization_id)):
                await _tell(connection, bootstrap, "organization.invitation.revoked", **dict(row))

        await self._undone(bootstrap, work)

    @activity.defn(name="organization.remove_dns")
    async def remove_dns(self, bootstrap: Bootstrap) -> None:
        """Take the organisation's name out of DNS."""
        async with self._application.as_tenant(UUID(bootstrap.tenant_id), "undo a step") as connection:
            await _bar(connection, "configure-dns")
        await self._dns.remove(bootstrap.subdomain, bootstrap.organization_id)

        async def work(connection: Connection) -> None:
            await _tell(connection, bootstrap, "organization.dns.removed", subdomain=bootstrap.subdomain)

        await self._undone(bootstrap, work)

    @activity.defn(name="organization.conclude")
    async def conclude(self, ending: Ending) -> None:
        """Write down why there is no organisation."""
        bootstrap, outcome = ending.bootstrap, ending.outcome
        told = {"step": ending.step, "reason": ending.reason, "left": ending.left}

        async def work(connection: Connection) -> None:
            await _bar(connection, "complete")
            organization_id, workflow_id = UUID(bootstrap.organization_id), _workflow_id()
            await connection.execute(_NOTE, organization_id, workflow_id, bootstrap.name)
            await connection.execute(_END, organization_id, workflow_id, outcome, ending.reason)
            await _tell(connection, bootstrap, f"organization.bootstrap.{outcome}", **told)

        await self._undone(bootstrap, work)

    async def _once(self, bootstrap: Bootstrap, kind: type[T], work: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._application.once(UUID(bootstrap.tenant_id), kind, work)

    async def _undone(self, bootstrap: Bootstrap, work: Callable[[Connection], Awaitable[None]]) -> None:
        """Take a compensation's part in the database. With its tenant all that it would undo is deleted."""
        try:
            await self._once(bootstrap, type(None), work)
        except ApplicationError as error:
            if error.type != TENANT_DELETED:
                raise


async def _tell(connection: Connection, bootstrap: Bootstrap, type_: str, **data: object) -> None:
    """Emit an event of the bootstrap, and add it to the audit trail."""
    told = {"organization_id": bootstrap.organization_id, **data}
    await emit(connection, bootstrap.stream, type_, told)
    await audit(connection, "system", type_.removeprefix("organization."), told)


async def _invited(connection: Connection, bootstrap: Bootstrap, email: str) -> Invitation:
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    invitation_id = await connection.fetchval(_INVITE, UUID(bootstrap.organization_id), email, token, digest)
    invitation = Invitation(invitation_id, email)
    await _tell(connection, bootstrap, "organization.invitation.created", **asdict(invitation))
    return invitation


async def _bar(connection: Connection, step: str) -> None:
    """Wait for the step's transaction, if one is under way, and let none begin from now on.

    A worker that was frozen past its time would otherwise take the step after it was undone.
    """
    await connection.execute(_BAR, _workflow_id(), step)


def _mail(sending: Sending, token: str) -> Mail:
    site, invitation = sending.site, sending.invitation
    name = site.bootstrap.name
    return Mail(
        mail_id=f"invitation-{invitation.invitation_id}@{site.domain}",
        to=invitation.email,
        subject=f"Invitation to {name}",
        text=f"You are invited to join {name}.\n\nhttps://{site.domain}/invitations/{token}\n",
    )


def _workflow_id() -> str:
    return activity.info().workflow_id or ""
