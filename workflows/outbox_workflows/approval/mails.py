"""What the mails about approvals say."""

from __future__ import annotations

from datetime import datetime

from outbox_workflows.approval.types import Action, ApprovalStep

_TITLES: dict[Action, str] = {
    "requested": "Your decision is needed: {subject}",
    "escalated": "Your decision is needed: {subject}",
    "delegated": "Your decision is needed: {subject}",
    "reminded": "Reminder: {subject}",
    "decided": "{state}: {subject}",
    "cancelled": "No longer needed: {subject}",
    "expired": "No decision in time: {subject}",
    "failed": "The approval has failed: {subject}",
}


def title_of(step: ApprovalStep) -> str:
    """The subject line. A subject that has line breaks loses them."""
    title = _TITLES.get(step.action, "{subject}")
    return " ".join(title.format(subject=step.subject, state=step.standing.state.capitalize()).split())


def text_about(step: ApprovalStep) -> str:
    """The body: who asks for what, who has to act, and until when."""
    standing = step.standing
    lines = [f"{step.requested_by} asks for approval: {step.subject}", ""]
    if standing.state != "pending":
        lines.append(f"{standing.state.capitalize()} by {standing.decided_by}, {_time(standing.decided_at)}.")
    elif step.action == "delegated":
        lines.append(f"{step.actor} asks you to decide, by {_time(standing.deadline)}.")
    elif step.action == "escalated":
        lines.append(f"{step.detail['silent']} has not answered. Please decide by {_time(standing.deadline)}.")
    else:
        lines.append(f"Please decide by {_time(standing.deadline)}.")
    if comment := standing.comment or step.detail.get("comment"):
        lines += ["", comment]
    return "\n".join([*lines, "", f"Approval {step.approval_id}"]) + "\n"


def _time(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
