"""Each family's starts, questions and commands, typed with its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

from outbox_workflows.approval.state_machine import faults as faults_of_approval
from outbox_workflows.approval.types import ApprovalCommand, EscalatingRequest, Request, SimpleRequest, Standing
from outbox_workflows.client.running import Running
from outbox_workflows.client.start import Place, Start
from outbox_workflows.organization.types import Bootstrap, Bootstrapped
from outbox_workflows.organization.validation import faults as faults_of_bootstrap
from outbox_workflows.shared.saga_types import Cancel, SagaProgress
from outbox_workflows.tenant.types import (
    Change,
    Created,
    Deleted,
    DeletionOrder,
    NewTenant,
    TenantOrder,
    creation_id,
    deletion_id,
)
from outbox_workflows.tenant.validation import faults_of, faults_of_order

R = TypeVar("R")


class Approvals:
    """Requests that people decide."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.simple = Start[SimpleRequest](place, "Approval", _id_of_request, faults_of_approval)
        """Ask one approver."""
        self.escalating = Start[EscalatingRequest](place, "EscalatingApproval", _id_of_request, faults_of_approval)
        """Ask a chain of approvers."""

    def of(self, tenant_id: str, approval_id: str, *, workflow_id: str | None = None) -> Approval:
        """The approval of this id, which is unique within the tenant; `workflow_id` as it was started under."""
        return Approval(self._place, workflow_id or _approval_id(tenant_id, approval_id), Standing)


class Approval(Running[Standing]):
    """One approval. Commands answer with its new state."""

    async def standing(self) -> Standing:
        """Its state."""
        return await self.query("standing", Standing)

    async def approve(self, command: ApprovalCommand) -> Standing:
        """Decide in favour."""
        return await self.command("approve", command, command.command_id, Standing)

    async def reject(self, command: ApprovalCommand) -> Standing:
        """Decide against it."""
        return await self.command("reject", command, command.command_id, Standing)

    async def delegate(self, command: ApprovalCommand) -> Standing:
        """Let `command.to` decide as well."""
        return await self.command("delegate", command, command.command_id, Standing)

    async def cancel(self, command: ApprovalCommand) -> Standing:
        """Take the request back, as who asked."""
        return await self.command("cancel", command, command.command_id, Standing)


class Tenants:
    """Tenants' creation, suspension, reactivation and deletion."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.create = Start[NewTenant](place, "TenantCreation", lambda new: creation_id(new.tenant_id), faults_of)
        """Create a tenant as a whole or not at all. After one that came to nothing, name another workflow id."""
        self.suspend = Start[TenantOrder](place, "TenantSuspension", _new_id("suspension"), faults_of_order)
        self.reactivate = Start[TenantOrder](place, "TenantReactivation", _new_id("reactivation"), faults_of_order)
        self.delete = Start[DeletionOrder](
            place, "TenantDeletion", lambda order: deletion_id(order.tenant_id), faults_of_order
        )
        """Delete a tenant. After a deletion that came to nothing, name another workflow id."""

    def creation_of(self, tenant_id: str, *, workflow_id: str | None = None) -> Creation:
        """The creation of this tenant; `workflow_id` as it was started under, if not the usual one."""
        return Creation(self._place, workflow_id or creation_id(tenant_id), Created)

    def deletion_of(self, tenant_id: str, *, workflow_id: str | None = None) -> Deletion:
        """The deletion of this tenant; `workflow_id` as it was started under, if not the usual one."""
        return Deletion(self._place, workflow_id or deletion_id(tenant_id), Deleted)


class _SagaHandle(Running[R]):
    """The query and the command of every saga."""

    async def progress(self) -> SagaProgress:
        """How far it is."""
        return await self.query("progress", SagaProgress)

    async def cancel(self, command: Cancel) -> SagaProgress:
        """Have it undone, unless it is too late."""
        return await self.command("cancel", command, command.command_id, SagaProgress)


class Creation(_SagaHandle[Created]):
    """One tenant's creation."""

    async def change(self, change: Change) -> SagaProgress:
        """Change parameters of steps that have not begun."""
        return await self.command("change", change, change.command_id, SagaProgress)


class Deletion(_SagaHandle[Deleted]):
    """One tenant's deletion. Cancelled, it leaves the tenant as it was."""


class Organizations:
    """Organisations' bootstraps. They usually begin with a row in `app.event`; `bootstrap` begins one without."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.bootstrap = Start[Bootstrap](
            place, "OrganizationBootstrap", lambda b: _bootstrap_id(b.organization_id), faults_of_bootstrap
        )

    def of(self, organization_id: str, *, workflow_id: str | None = None) -> OrganizationBootstrap:
        """The bootstrap of this organisation; `workflow_id` as it was started under, if not the usual one."""
        return OrganizationBootstrap(self._place, workflow_id or _bootstrap_id(organization_id), Bootstrapped)


class OrganizationBootstrap(_SagaHandle[Bootstrapped]):
    """One organisation's bootstrap."""


def _approval_id(tenant_id: str, approval_id: str) -> str:
    return f"approval-{tenant_id}-{approval_id}"


def _bootstrap_id(organization_id: str) -> str:
    return f"org-bootstrap-{organization_id}"


def _id_of_request(request: Request) -> str:
    return _approval_id(request.tenant_id, request.approval_id)


def _new_id(what: str) -> Callable[[TenantOrder], str]:
    """A new id each time: a tenant may be suspended again and again. The message carries it, so one start is one."""
    return lambda order: f"tenant-{what}-{order.tenant_id}-{uuid4()}"
