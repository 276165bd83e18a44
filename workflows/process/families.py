"""The workflow families, and what each needs to be carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflows.application.mail import Mailer

if TYPE_CHECKING:
    from workflows.application.database import Application


@dataclass(frozen=True, slots=True)
class Ports:
    """The world outside of the database, as activities see it."""

    mailer: Mailer


@dataclass(frozen=True, slots=True)
class Family:
    """Workflow classes, and what makes their activities."""

    workflows: tuple[type, ...]
    activities: Callable[[Application, Ports], list[Callable[..., Any]]]


FAMILIES: dict[str, Family] = {}


def collect(
    names: Iterable[str], application: Application, ports: Ports
) -> tuple[list[type], list[Callable[..., Any]]]:
    """The workflows and activities of these families."""
    chosen = [FAMILIES[name] for name in names]
    workflows = [workflow for family in chosen for workflow in family.workflows]
    return workflows, [activity for family in chosen for activity in family.activities(application, ports)]
