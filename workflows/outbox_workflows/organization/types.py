"""What the bootstrap's workflow, its activities and its callers say to each other. Plain JSON; ids are texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from outbox_workflows.shared.saga_types import SagaTimeouts, Undo


@dataclass(frozen=True)
class Bootstrap:
    """What `organization.bootstrap.initiated` says; `app.check_organization_bootstrap` refuses anything else.

    So does `rules.faults` where there was no such event.
    """

    organization_id: str = ""
    tenant_id: str = ""
    stream: str = ""
    """The events' stream, which the bootstrap goes on with."""
    name: str = ""
    subdomain: str = ""
    """One label, below the zone that the DNS port serves."""
    invitations: list[str] = field(default_factory=list)
    """E-mail addresses."""
    patience: SagaTimeouts = SagaTimeouts(attempt_s=15.0, undo_s=86_400.0)


@dataclass(frozen=True)
class Site:
    """A bootstrap with configured DNS."""

    bootstrap: Bootstrap
    domain: str
    """The organisation's name in DNS, in full."""


@dataclass(frozen=True)
class Invitation:
    """One person's invitation. The token that accepts it stays in the database until it is mailed."""

    invitation_id: str
    email: str


@dataclass(frozen=True)
class Sending:
    """One invitation to be mailed."""

    site: Site
    invitation: Invitation


@dataclass(frozen=True)
class UndoBootstrap:
    """A step of a bootstrap to take back."""

    bootstrap: Bootstrap
    order: Undo


@dataclass(frozen=True)
class Bootstrapped:
    """How a bootstrap ended that did not fail. Of one that was cancelled by a command nothing is left but its row."""

    status: Literal["bootstrapped", "cancelled"]
    organization_id: str
    domain: str = ""
    invitations: int = 0
