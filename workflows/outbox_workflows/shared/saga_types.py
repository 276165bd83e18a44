"""What sagas of all families speak of: patience, progress, undoing, cancelling."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Literal

LONGEST_S = 3650 * 86_400.0


def no_time(name: str) -> str:
    """The fault of a time that is none, or too long."""
    return f"{name} is no number of seconds from 0 to {LONGEST_S:g}"


@dataclass(frozen=True, slots=True)
class SagaTimeouts:
    """How long to try, in seconds. Less than one second counts as one."""

    step_s: float = 3600.0
    """For one step, with all its tries; then what has been done is undone. Steps without return have no end."""
    undo_s: float = 7 * 86_400.0
    """For undoing everything; then the workflow fails and names what is left."""
    attempt_s: float = 30.0
    """For one try."""
    heartbeat_s: float = 10.0
    """How long a try may go without a heartbeat before another worker tries. Cancelling takes up to as long."""

    def of(self, seconds: float) -> timedelta:
        """One of these times, as Temporal takes it."""
        return timedelta(seconds=max(seconds, 1.0))

    def faults(self) -> list[str]:
        """What is wrong with them, a line each."""
        names = [field.name for field in fields(self)]
        return [no_time(f"patience.{name}") for name in names if not 0 <= getattr(self, name) <= LONGEST_S]


@dataclass(frozen=True, slots=True)
class Cancel:
    """The command to undo what a workflow did, and to end."""

    command_id: str = ""
    """Chosen by the caller: a repetition counts once."""
    actor: str = "system"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SagaProgress:
    """How far a workflow is."""

    status: Literal["running", "undoing", "undone", "failed", "done"]
    """`undone`: nothing of it is left. `failed`: it is, see `left`."""
    step: str
    """The one that has begun last."""
    percent: int
    """Of the way forward; 0 when all is undone."""
    done: list[str]
    undone: list[str]
    left: list[str]
    """Steps that could not be undone."""
    cancelled_by: str
    refused: list[str]
    """The last commands that came as signals and were refused, with the reason."""
    error: str = ""
    """Why it is undone."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Which step of this workflow to take back, and why."""

    tenant_id: str
    step: str
    actor: str
    reason: str
    came_to: str = ""
    """The last step that began."""
    cancelled: bool = False
    """Whether the workflow was cancelled. Otherwise that step failed."""
    left: list[str] = field(default_factory=list)
    """Steps that could not be undone so far."""
