"""The steps of an organisation's bootstrap. Each emits its event in the transaction that has its effect."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from outbox_workflows.organization.dns import Dns, NameRefused
from outbox_workflows.organization.types import Bootstrap, Invitation, Sending, Site, UndoBootstrap
from outbox_workflows.shared.database import TENANT_DELETED, Application
from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.mail import Mail, Mailer, MailRefused
from outbox_workflows.shared.refusal import refuse
from outbox_workflows.shared.undo import bar, undo

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
            await _record(connection, bootstrap, "organization.bootstrap.workflow_started")

        await self._application.once(UUID(bootstrap.tenant_id), type(None), work)

    @activity.defn(name="organization.configure_dns")
    async def configure_dns(self, bootstrap: Bootstrap) -> str:
        """Have the organisation's name lead to the application; return it."""
        try:
            domain = await self._dns.configure(bootstrap.subdomain, bootstrap.organization_id)
        except NameRefused as error:
            refuse("Refused", str(error))

        async def work(connection: Connection) -> str:
            await _record(connection, bootstrap, "organization.dns.configured", domain=domain)
            return domain

        try:
            return await self._application.once(UUID(bootstrap.tenant_id), str, work)
        except ApplicationError as error:
            if error.type == "StepTaken":  # this worker was away for long, and the step is undone by now
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
            await _record(connection, bootstrap, "organization.created", name=bootstrap.name, domain=site.domain)

        await self._application.once(UUID(bootstrap.tenant_id), type(None), work)

    @activity.defn(name="organization.invite")
    async def invite(self, site: Site) -> list[Invitation]:
        """Make the invitations, one for each address."""
        bootstrap = site.bootstrap

        async def work(connection: Connection) -> list[Invitation]:
            return [await _invited(connection, bootstrap, email) for email in dict.fromkeys(bootstrap.invitations)]

        return await self._application.once(UUID(bootstrap.tenant_id), list[Invitation], work)

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
                refuse("Refused", str(error))

        async def work(connection: Connection) -> None:
            if await connection.fetchval(_SENT, UUID(invitation.invitation_id)):
                await _record(connection, bootstrap, "organization.invitation.sent", **asdict(invitation))

        await self._application.once(UUID(bootstrap.tenant_id), type(None), work)

    @activity.defn(name="organization.complete")
    async def complete(self, site: Site) -> None:
        """Make the organisation active."""
        bootstrap = site.bootstrap

        async def work(connection: Connection) -> None:
            if not await connection.fetchval(_ACTIVATE, UUID(bootstrap.organization_id)):
                refuse("Refused", "the bootstrap has been given up")
            await _record(connection, bootstrap, "organization.bootstrap.completed", domain=site.domain)

        await self._application.once(UUID(bootstrap.tenant_id), type(None), work)

    @activity.defn(name="organization.revoke_invitations")
    async def revoke_invitations(self, undoing: UndoBootstrap) -> bool:
        """Revoke the invitations; say whether they had been made."""
        bootstrap = undoing.bootstrap

        async def work(connection: Connection, _made: object) -> None:
            for row in await connection.fetch(_REVOKE, UUID(bootstrap.organization_id)):
                await _record(connection, bootstrap, "organization.invitation.revoked", **dict(row))

        return await undo(self._application, undoing.order, work)

    @activity.defn(name="organization.remove_dns")
    async def remove_dns(self, undoing: UndoBootstrap) -> bool:
        """Take the organisation's name out of DNS; say whether it had been announced."""
        bootstrap = undoing.bootstrap
        await bar(self._application, undoing.order)
        await self._dns.remove(bootstrap.subdomain, bootstrap.organization_id)

        async def work(connection: Connection, _domain: object) -> None:
            await _record(connection, bootstrap, "organization.dns.removed", subdomain=bootstrap.subdomain)

        return await undo(self._application, undoing.order, work)

    @activity.defn(name="organization.conclude")
    async def conclude(self, undoing: UndoBootstrap) -> None:
        """Write down why there is no organisation. With its tenant it is deleted anyway."""
        bootstrap, order = undoing.bootstrap, undoing.order
        outcome = "cancelled" if order.cancelled else "failed"
        details = {"step": order.came_to, "reason": order.reason, "left": order.left}

        async def work(connection: Connection) -> None:
            organization_id, workflow_id = UUID(bootstrap.organization_id), _workflow_id()
            await connection.execute(_NOTE, organization_id, workflow_id, bootstrap.name)
            await connection.execute(_END, organization_id, workflow_id, outcome, order.reason)
            await _record(connection, bootstrap, f"organization.bootstrap.{outcome}", **details)

        try:
            await self._application.once(UUID(bootstrap.tenant_id), type(None), work)
        except ApplicationError as error:
            if error.type != TENANT_DELETED:
                raise


async def _record(connection: Connection, bootstrap: Bootstrap, type_: str, **data: object) -> None:
    """Emit an event of the bootstrap, and add it to the audit trail."""
    details = {"organization_id": bootstrap.organization_id, **data}
    await emit(connection, bootstrap.stream, type_, details)
    await audit(connection, "system", type_.removeprefix("organization."), details)


async def _invited(connection: Connection, bootstrap: Bootstrap, email: str) -> Invitation:
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    invitation_id = await connection.fetchval(_INVITE, UUID(bootstrap.organization_id), email, token, digest)
    invitation = Invitation(invitation_id, email)
    await _record(connection, bootstrap, "organization.invitation.created", **asdict(invitation))
    return invitation


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
