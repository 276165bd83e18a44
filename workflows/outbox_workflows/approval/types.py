"""What goes into approvals, between their steps, and out of them. Plain JSON, and every field has a default.

So a message of an older or newer producer fits, and `state_machine.faults` says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

DAY_S = 86_400.0
SYSTEM = "system"
"""The actor of steps without a command: time that passed, a cancellation from Temporal, a failure."""

Verb = Literal["approve", "reject", "cancel", "delegate"]
State = Literal["pending", "approved", "rejected", "cancelled", "expired", "failed"]
Action = Literal[
    "requested", "reminded", "escalated", "delegated", "decided", "cancelled", "expired", "failed", "refused", "unsent"
]
NOTES: tuple[Action, ...] = ("refused", "unsent")
"""Steps that change nothing but the trail."""


@dataclass(frozen=True, slots=True)
class ApprovalCommand:
    """What an update or a signal carries. `command_id` is the producer's: repeated, the command does nothing more."""

    command_id: str = ""
    actor: str = ""
    comment: str = ""
    to: str = ""
    """Of delegate: who may decide as well."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of an approval: the answer to the query and to commands, and what the row keeps."""

    state: State = "pending"
    level: int = 1
    """The approver who decides now: the first is level 1."""
    approver: str = ""
    delegate: str = ""
    """Who may decide as well as the approver, until the next approver is asked. Empty for none."""
    deadline: datetime | None = None
    reminders: int = 0
    """Sent at this level."""
    revision: int = 0
    """Steps so far; rises by one with each."""
    decided_by: str = ""
    decided_at: datetime | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A command that had its effect, or by signal its refusal, kept so that a repetition changes nothing."""

    verb: Verb
    actor: str
    code: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run that continues as new hands on. Its times are points in time, so they do not begin again."""

    standing: Standing
    next_reminder: datetime | None
    heard: dict[str, Heard]


@dataclass(frozen=True)
class Request:
    """What every approval is about. Who is asked, the two kinds below say."""

    tenant_id: str = ""
    approval_id: str = ""
    """Unique within the tenant."""
    subject: str = ""
    requested_by: str = ""
    """People are named as the mailer can reach them."""
    answer_within_s: float = 3 * DAY_S
    """How long each of the asked has, from the moment when they are asked."""
    remind_every_s: float = DAY_S
    """0 for never."""
    step_timeout_s: float = 30.0
    """If a step's worker sends no heartbeat for this long, another worker gets the step."""
    mail_within_s: float = 3600.0
    """A mail that cannot be sent for this long is noted as unsent; the approval goes on."""
    earlier: Earlier | None = None
    """Only from continue-as-new."""

    @property
    def chain(self) -> tuple[str, ...]:
        """Who is asked, in this order."""
        return ()


@dataclass(frozen=True)
class SimpleRequest(Request):
    """One approver. Without an answer in time the request expires."""

    answer_within_s: float = 14 * DAY_S
    remind_every_s: float = 3 * DAY_S
    approver: str = ""

    @property
    def chain(self) -> tuple[str, ...]:
        """The one."""
        return (self.approver,) if self.approver else ()


@dataclass(frozen=True)
class EscalatingRequest(Request):
    """A chain of approvers. If one does not answer in time, the next is asked; after the last it expires."""

    approvers: list[str] = field(default_factory=list)

    @property
    def chain(self) -> tuple[str, ...]:
        """Who is asked, in this order."""
        return tuple(self.approvers)


@dataclass(frozen=True, slots=True)
class ApprovalStep:
    """Something that happened to an approval, and its state since: what the activity `approval.record` writes."""

    tenant_id: str
    approval_id: str
    subject: str
    requested_by: str
    action: Action
    actor: str
    standing: Standing
    detail: dict[str, str]

    @property
    def name(self) -> str:
        """Unlike that of any other step of this approval, through all its runs."""
        return f"{self.action}-{self.standing.revision}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail about a step to one of the people concerned: what the activity `approval.mail` sends."""

    step: ApprovalStep
    to: str
    number: int
    """Among the mails about this step."""

    @property
    def name(self) -> str:
        """Unlike that of any other mail or step of this approval."""
        return f"mail-{self.step.name}-{self.number}"
