"""Each family's starts, questions and commands, typed with its own words."""

from __future__ import annotations

from uuid import uuid4

from workflows.approval.words import Command, EscalatingRequest, SimpleRequest, Standing
from workflows.client.running import Running
from workflows.client.start import Place, Start
from workflows.organization.words import Bootstrap, Bootstrapped
from workflows.organization.words import Progress as BootstrapProgress
from workflows.tenant.rules import checked
from workflows.tenant.words import (
    Cancel,
    Change,
    Created,
    Deleted,
    DeletionOrder,
    NewTenant,
    Progress,
    TenantOrder,
    creation_id,
)


class Approvals:
    """Requests that people decide."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.simple = Start[SimpleRequest](place, "Approval", lambda r: _approval_id(r.tenant_id, r.approval_id))
        """Ask one approver."""
        self.escalating = Start[EscalatingRequest](
            place, "EscalatingApproval", lambda r: _approval_id(r.tenant_id, r.approval_id)
        )
        """Ask a chain of approvers."""

    def of(self, tenant_id: str, approval_id: str) -> Approval:
        """The approval of this id, which is unique within the tenant."""
        return Approval(self._place, _approval_id(tenant_id, approval_id), Standing)


class Approval(Running[Standing]):
    """One approval. Commands answer with where it stands since."""

    async def standing(self) -> Standing:
        """Where it stands."""
        return await self.query("standing", Standing)

    async def approve(self, command: Command) -> Standing:
        """Decide in favour."""
        return await self.command("approve", command, command.command_id, Standing)

    async def reject(self, command: Command) -> Standing:
        """Decide against it."""
        return await self.command("reject", command, command.command_id, Standing)

    async def delegate(self, command: Command) -> Standing:
        """Let `command.to` decide as well."""
        return await self.command("delegate", command, command.command_id, Standing)

    async def cancel(self, command: Command) -> Standing:
        """Take the request back, as who asked."""
        return await self.command("cancel", command, command.command_id, Standing)


class Tenants:
    """Tenants' creation, suspension, reactivation and deletion."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.create = Start[NewTenant](place, "TenantCreation", lambda new: creation_id(checked(new).tenant_id))
        """Create a tenant as a whole or not at all. Raises ValueError for what could never be created."""
        self.suspend = Start[TenantOrder](place, "TenantSuspension", lambda order: _order_id("suspension", order))
        self.reactivate = Start[TenantOrder](
            place, "TenantReactivation", lambda order: _order_id("reactivation", order)
        )
        self.delete = Start[DeletionOrder](place, "TenantDeletion", lambda order: f"tenant-deletion-{order.tenant_id}")

    def creation_of(self, tenant_id: str) -> Creation:
        """The creation of this tenant."""
        return Creation(self._place, creation_id(tenant_id), Created)

    def deletion_of(self, tenant_id: str) -> Deletion:
        """The deletion of this tenant."""
        return Deletion(self._place, f"tenant-deletion-{tenant_id}", Deleted)


class Creation(Running[Created]):
    """One tenant's creation."""

    async def progress(self) -> Progress:
        """How far it is."""
        return await self.query("progress", Progress)

    async def change(self, change: Change) -> Progress:
        """Change parameters whose step has not begun."""
        return await self.command("change", change, change.command_id, Progress)

    async def cancel(self, command: Cancel) -> Progress:
        """Have it undone, unless it is too late."""
        return await self.command("cancel", command, command.command_id, Progress)


class Deletion(Running[Deleted]):
    """One tenant's deletion."""

    async def progress(self) -> Progress:
        """How far it is."""
        return await self.query("progress", Progress)

    async def cancel(self, command: Cancel) -> Progress:
        """Keep the tenant, unless it is too late."""
        return await self.command("cancel", command, command.command_id, Progress)


class Organizations:
    """Organisations' bootstraps. They usually begin with a row in `app.event`; `bootstrap` begins one without."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.bootstrap = Start[Bootstrap](place, "OrganizationBootstrap", lambda b: _bootstrap_id(b.organization_id))

    def of(self, organization_id: str) -> OrganizationBootstrap:
        """The bootstrap of this organisation."""
        return OrganizationBootstrap(self._place, _bootstrap_id(organization_id), Bootstrapped)


class OrganizationBootstrap(Running[Bootstrapped]):
    """One organisation's bootstrap."""

    async def progress(self) -> BootstrapProgress:
        """How far it is."""
        return await self.query("progress", BootstrapProgress)

    async def cancel(self) -> None:
        """Have it undone, unless it is too late. Returns once Temporal has the request."""
        await self.handle.cancel()


def _approval_id(tenant_id: str, approval_id: str) -> str:
    return f"approval-{tenant_id}-{approval_id}"


def _bootstrap_id(organization_id: str) -> str:
    return f"org-bootstrap-{organization_id}"


def _order_id(what: str, order: TenantOrder) -> str:
    """A new id each time: a tenant may be suspended again and again. The message carries it, so one start is one."""
    return f"tenant-{what}-{order.tenant_id}-{uuid4()}"
