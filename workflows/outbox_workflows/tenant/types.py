"""What goes into the tenant's workflows, what can be said to them while they run, and what comes out. Plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from outbox_workflows.shared.saga_types import SagaTimeouts

DEFAULT_PLAN = "Standard"
ADMIN_ROLE = "Admin"


@dataclass(frozen=True, slots=True)
class Admin:
    """The tenant's first user."""

    email: str = ""
    first_name: str = ""
    last_name: str = ""
    password_hash: str = field(default="", repr=False)
    """From `outbox_workflows.tenant.passwords.hashed_password`, or the application's own argon2, scrypt or bcrypt."""


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What TenantCreation creates. The caller chooses the id, a UUID."""

    tenant_id: str = ""
    name: str = ""
    admin: Admin = Admin()
    company_name: str = ""
    """Of the default company; without a name there is none."""
    billing_plan: str = DEFAULT_PLAN
    preferences: dict[str, str] = field(default_factory=dict)
    """By name; they come over the usual ones."""
    requested_by: str = "system"
    """For the audit trail."""
    patience: SagaTimeouts = SagaTimeouts()


@dataclass(frozen=True, slots=True)
class Change:
    """Other parameters for a creation that runs. What is None stays as it is."""

    command_id: str = ""
    """Chosen by the caller: a repetition counts once."""
    actor: str = "system"
    name: str | None = None
    company_name: str | None = None
    admin_email: str | None = None
    billing_plan: str | None = None
    preferences: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """How a creation ended that did not fail. Of one that was cancelled by a command nothing is left."""

    status: Literal["created", "cancelled"]
    tenant_id: str
    company_id: str | None = None
    admin_user_id: str | None = None


@dataclass(frozen=True, slots=True)
class TenantMade:
    """What the step create-tenant made."""

    company_id: str | None


@dataclass(frozen=True, slots=True)
class AdminToMake:
    """What the step create-admin-user needs."""

    tenant_id: str
    admin: Admin
    actor: str


@dataclass(frozen=True, slots=True)
class DataToSetUp:
    """What the step set-up-data needs."""

    tenant_id: str
    admin_user_id: str
    billing_plan: str
    preferences: dict[str, str]
    actor: str


@dataclass(frozen=True, slots=True)
class TenantOrder:
    """What TenantSuspension, TenantReactivation and TenantDeletion are to act on."""

    tenant_id: str = ""
    requested_by: str = "system"
    reason: str = ""
    patience: SagaTimeouts = SagaTimeouts()


@dataclass(frozen=True, slots=True)
class DeletionOrder(TenantOrder):
    """A TenantDeletion's order."""

    grace_s: float = 0.0
    """The tenant is suspended for this long, during which the deletion can be cancelled; then its data goes."""


@dataclass(frozen=True, slots=True)
class Turned:
    """How a tenant's status changed, if it did."""

    tenant_id: str
    status: str
    was: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """How a deletion ended. `rows` counts by table what the last try of deleting removed."""

    status: Literal["deleted", "cancelled"]
    tenant_id: str
    rows: dict[str, int] = field(default_factory=dict)


def creation_id(tenant_id: str) -> str:
    """The workflow id of a tenant's creation. After one that failed or was cancelled, another needs another id."""
    return f"tenant-creation-{tenant_id}"


def deletion_id(tenant_id: str) -> str:
    """The workflow id of a tenant's deletion. After one that failed or was cancelled, another needs another id."""
    return f"tenant-deletion-{tenant_id}"
