"""The workflow families, and what each needs to be carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outbox_workflows.approval import definitions as approval
from outbox_workflows.approval.activities import ApprovalActivities
from outbox_workflows.organization import definitions as organization
from outbox_workflows.organization.activities import OrganizationActivities
from outbox_workflows.organization.dns import Dns
from outbox_workflows.shared.mail import Mailer
from outbox_workflows.tenant import definitions as tenant
from outbox_workflows.tenant.activities import TenantActivities

if TYPE_CHECKING:
    from outbox_workflows.shared.database import Application

Activities = list[Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Ports:
    """The world outside of the database, as activities see it."""

    mailer: Mailer
    dns: Dns


@dataclass(frozen=True, slots=True)
class Family:
    """Workflow classes, and what makes their activities."""

    workflows: tuple[type, ...]
    activities: Callable[[Application, Ports], Activities]


FAMILIES = {
    "approval": Family(
        approval.WORKFLOWS, lambda application, ports: ApprovalActivities(application, ports.mailer).all()
    ),
    "tenant": Family(tenant.WORKFLOWS, lambda application, _: TenantActivities(application).all()),
    "organization": Family(
        organization.WORKFLOWS,
        lambda application, ports: OrganizationActivities(application, ports.mailer, ports.dns).all(),
    ),
}


def collect(names: Iterable[str], application: Application, ports: Ports) -> tuple[list[type], Activities]:
    """The workflows and activities of these families."""
    chosen = [FAMILIES[name] for name in names]
    workflows = [workflow for family in chosen for workflow in family.workflows]
    return workflows, [activity for family in chosen for activity in family.activities(application, ports)]
