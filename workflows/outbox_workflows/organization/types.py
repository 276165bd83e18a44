"""What the bootstrap's workflow, its activities and its callers say to each other. Plain JSON; ids are texts."""

from __future__ import annotations

from dataclasses import dataclass, field

REFUSED = "Refused"
"""Type of permanent failures, of steps that have had no effect."""


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


@dataclass(frozen=True)
class Site:
    """A bootstrap whose DNS is configured."""

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
class Ending:
    """How a bootstrap ended that did not succeed, after everything was undone that could be."""

    bootstrap: Bootstrap
    outcome: str
    """failed or cancelled."""
    step: str
    """The step that it came to."""
    reason: str
    left: list[str]
    """Compensations that were given up: what they should have undone is still there."""


@dataclass(frozen=True)
class Bootstrapped:
    """The workflow's result."""

    organization_id: str
    domain: str
    invitations: int


@dataclass(frozen=True)
class BootstrapProgress:
    """The answer to the query `progress`."""

    state: str = "running"
    """running, undoing, completed, failed or cancelled."""
    step: str = ""
    """What it does now, or did last."""
    steps: int = 0
    """How many steps there are when all goes well."""
    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    error: str | None = None
