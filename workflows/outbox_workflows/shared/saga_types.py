"""What sagas of all families speak of: patience, progress, undoing, cancelling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal


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
    """Steps whose undoing was given up."""
    cancelled_by: str
    refused: list[str]
    """The last commands that came as signals and were refused, with the reason."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Which step of this workflow to take back, and why."""

    tenant_id: str
    step: str
    actor: str
    reason: str
