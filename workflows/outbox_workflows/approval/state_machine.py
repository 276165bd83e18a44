"""The state of one approval, and what may be done with it: pure, without Temporal and without a clock of its own.

Every change is a step (`types.ApprovalStep`), made at once or refused. The workflow records the steps later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from outbox_workflows.approval.types import (
    SYSTEM,
    Action,
    ApprovalCommand,
    ApprovalStep,
    Earlier,
    Heard,
    Letter,
    Request,
    Standing,
    State,
    Verb,
)
from outbox_workflows.shared.storable_text import is_storable, storable

_LONGEST_S = 3650 * 86_400.0
_REMEMBERED = 1000
"""Commands that are known again: far more than an approval sees, and few enough to be handed on."""
_ENDS: dict[Verb, State] = {"approve": "approved", "reject": "rejected", "cancel": "cancelled"}


class Refused(Exception):
    """A command that cannot be taken. `code` is for programs, the text for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def faults(request: Request) -> list[str]:
    """What is wrong with a request, one line each, with what to do about it."""
    found = [f"{name} is missing" for name in ("approval_id", "subject", "requested_by") if not getattr(request, name)]
    try:
        UUID(request.tenant_id)
    except ValueError:
        found.append(f"tenant_id is {request.tenant_id!r}: give the tenant's UUID")
    if not request.chain or not all(request.chain):
        found.append("no approver is named: name the approver (Approval) or the approvers (EscalatingApproval)")
    if request.requested_by in request.chain:
        found.append(f"{request.requested_by} is asked about a request of their own: name another person")
    texts = (request.approval_id, request.subject, request.requested_by, *request.chain)
    if not all(map(is_storable, texts)):
        found.append(
            "a text has NUL or half of a character in it, which cannot be stored: cut texts between characters"
        )
    durations = ("answer_within_s", "remind_every_s", "step_timeout_s", "mail_within_s")
    for name in durations:
        lowest = 0.0 if name == "remind_every_s" else 0.001
        if not lowest <= getattr(request, name) <= _LONGEST_S:
            found.append(f"{name} is {getattr(request, name):g}: give seconds from {lowest:g} to {_LONGEST_S:g}")
    return found


def _storable(command: ApprovalCommand) -> ApprovalCommand:
    """The command with texts that can be stored, even if the producer's JSON had others."""
    return ApprovalCommand(*(storable(getattr(command, each.name)) for each in fields(command)))


def next_reminder(last: datetime, now: datetime, every: timedelta, deadline: datetime) -> datetime | None:
    """When to remind after `last`, in the rhythm of `every`: what was missed is not made up for.

    None for never, because `every` is zero or the deadline comes first.
    """
    if not every:
        return None
    missed = max(0, (now - last) // every)
    due = last + (missed + 1) * every
    return due if due < deadline else None


class Case:
    """The state of one approval. Not for use before `faults` found none, but safe to make."""

    def __init__(self, request: Request, now: datetime, misfits: Sequence[str] = ()) -> None:
        """`misfits` say why the request could not be read; `request` is then an empty one."""
        self._request = request
        self._heard: dict[str, Heard] = {}
        self._next_reminder: datetime | None = None
        self._faults = list(misfits) or faults(request)
        self.standing = Standing()
        if request.earlier is not None:
            self.standing = request.earlier.standing
            self._next_reminder, self._heard = request.earlier.next_reminder, dict(request.earlier.heard)
        elif not self._faults:
            self._ask(1, now)

    @property
    def over(self) -> bool:
        """Whether nothing can change any more."""
        return self.standing.state != "pending"

    @property
    def due(self) -> datetime | None:
        """When the next step happens by time, if no command comes before; None when it is over."""
        if self.over or self.standing.deadline is None:
            return None
        return min(self.standing.deadline, self._next_reminder or self.standing.deadline)

    @property
    def earlier(self) -> Earlier:
        """All that another run needs to go on from here."""
        kept = islice(self._heard.items(), max(0, len(self._heard) - _REMEMBERED), None)
        return Earlier(self.standing, self._next_reminder, dict(kept))

    def open(self) -> ApprovalStep:
        """The first step."""
        return self._step("requested", self._request.requested_by)

    def check(self, verb: Verb, command: ApprovalCommand) -> None:
        """Raise Refused unless the command can be taken now, or was taken before."""
        command = _storable(command)
        if self._faults:
            raise Refused("InvalidRequest", "; ".join(self._faults))
        for name in ("command_id", "actor"):
            if not getattr(command, name):
                raise Refused("InvalidCommand", f"the command has no {name}")
        known = self._heard.get(command.command_id)
        if known is None:
            self._check_new(verb, command)
        elif (known.verb, known.actor) != (verb, command.actor):
            raise Refused(
                "CommandReused",
                f"command {command.command_id} was {known.verb} by {known.actor}: give each command an id of its own",
            )
        elif known.code:
            raise Refused(known.code, known.refusal)

    def take(self, verb: Verb, command: ApprovalCommand, now: datetime) -> ApprovalStep | None:
        """Carry a command out; None if that was done before. Raises Refused, and then nothing has changed."""
        self.check(verb, command)
        command = _storable(command)
        if command.command_id in self._heard:
            return None
        self._heard[command.command_id] = Heard(verb, command.actor)
        said = {"command_id": command.command_id} | ({"comment": command.comment} if command.comment else {})
        if verb == "delegate":
            self.standing = replace(self.standing, delegate=command.to)
            return self._step("delegated", command.actor, to=command.to, **said)
        self._end(_ENDS[verb], command.actor, now, command.comment)
        return self._step("cancelled" if verb == "cancel" else "decided", command.actor, **said)

    def hear(self, verb: Verb, command: ApprovalCommand, now: datetime) -> ApprovalStep | None:
        """Take a command that gets no answer, such as a signal: a refusal is a step, too."""
        command = _storable(command)
        try:
            return self.take(verb, command, now)
        except Refused as refusal:
            known = self._heard.get(command.command_id)
            if known is not None and (known.verb, known.actor) == (verb, command.actor):
                return None
            if known is None and command.command_id:
                self._heard[command.command_id] = Heard(verb, command.actor, refusal.code, str(refusal))
            said = {"command_id": command.command_id, "code": refusal.code, "reason": str(refusal)}
            return self._step("refused", command.actor or "unknown", verb=verb, **said)

    def mishear(self, verb: Verb, reason: str) -> ApprovalStep:
        """Take note of a command that cannot be read."""
        return self._step("refused", "unknown", verb=verb, command_id="", code="InvalidCommand", reason=reason)

    def pass_time(self, now: datetime) -> ApprovalStep | None:
        """Do what is due: remind, ask the next, or let it expire; None if nothing is."""
        deadline, reminder = self.standing.deadline, self._next_reminder
        if self.over or deadline is None:
            return None
        if now >= deadline:
            return self._escalate(now)
        if reminder is None or now < reminder:
            return None
        every = timedelta(seconds=self._request.remind_every_s)
        self._next_reminder = next_reminder(reminder, now, every, deadline)
        self.standing = replace(self.standing, reminders=self.standing.reminders + 1)
        return self._step("reminded", SYSTEM)

    def withdraw(self, reason: str, now: datetime) -> ApprovalStep | None:
        """Cancel from outside; None if it was too late for that."""
        if self.over or self._faults:
            return None
        reason = storable(reason)
        self._end("cancelled", SYSTEM, now, reason)
        return self._step("cancelled", SYSTEM, comment=reason)

    def fail(self, reason: str, now: datetime) -> ApprovalStep:
        """End because a step could not be recorded, even a decision: what is not recorded has not happened."""
        self._end("failed", SYSTEM, now, reason)
        return self._step("failed", SYSTEM, reason=reason)

    def note(self, action: Action, **detail: str) -> ApprovalStep:
        """A step that changes nothing."""
        return self._step(action, SYSTEM, **detail)

    def _check_new(self, verb: Verb, command: ApprovalCommand) -> None:
        standing, actor = self.standing, command.actor
        if self.over:
            at = standing.decided_at.isoformat(timespec="seconds") if standing.decided_at else "an unknown time"
            raise Refused("AlreadyDecided", f"already {standing.state} by {standing.decided_by} at {at}")
        if verb == "cancel":
            if actor != self._request.requested_by:
                raise Refused("NotTheRequester", f"{actor} did not ask: only {self._request.requested_by} may cancel")
            return
        if actor not in (standing.approver, standing.delegate):
            raise Refused("NotYourTurn", self._turn_text(actor))
        if verb == "delegate":
            self._check_delegate(command.to)

    def _check_delegate(self, to: str) -> None:
        if not to:
            raise Refused("InvalidDelegate", "the command names no delegate (`to`)")
        if to == self._request.requested_by:
            raise Refused("InvalidDelegate", f"{to} asked for this approval, and cannot decide it")
        if to in (self.standing.approver, self.standing.delegate):
            raise Refused("InvalidDelegate", f"{to} may decide already")

    def _turn_text(self, actor: str) -> str:
        standing, chain = self.standing, self._request.chain
        until = standing.deadline.isoformat(timespec="seconds") if standing.deadline else "further notice"
        asked = standing.approver + (f" or {standing.delegate}" if standing.delegate else "")
        if actor in chain[: standing.level - 1]:
            why = f"the time of {actor} is over"
        elif actor in chain[standing.level :]:
            why = f"{actor} is not asked yet"
        else:
            why = f"{actor} is not asked"
        return f"{why}: it is the turn of {asked}, until {until}"

    def _ask(self, level: int, now: datetime) -> None:
        """Turn to the approver of this level, who has the whole time from now."""
        deadline = now + timedelta(seconds=self._request.answer_within_s)
        every = timedelta(seconds=self._request.remind_every_s)
        self._next_reminder = next_reminder(now, now, every, deadline)
        asked = self._request.chain[level - 1]
        self.standing = replace(self.standing, level=level, approver=asked, delegate="", deadline=deadline, reminders=0)

    def _escalate(self, now: datetime) -> ApprovalStep:
        silent = self.standing.approver
        if self.standing.level < len(self._request.chain):
            self._ask(self.standing.level + 1, now)
            return self._step("escalated", SYSTEM, silent=silent)
        self._end("expired", SYSTEM, now, "")
        return self._step("expired", SYSTEM, silent=silent)

    def _end(self, state: State, by: str, now: datetime, comment: str) -> None:
        self.standing = replace(self.standing, state=state, decided_by=by, decided_at=now, comment=comment)

    def _step(self, action: Action, actor: str, **detail: str) -> ApprovalStep:
        self.standing = replace(self.standing, revision=self.standing.revision + 1)
        of = self._request
        return ApprovalStep(
            of.tenant_id, of.approval_id, of.subject, of.requested_by, action, actor, self.standing, detail
        )


def letters(step: ApprovalStep) -> list[Letter]:
    """The mails that a step calls for: to those who are to act, or who wait for the end."""
    standing, requester = step.standing, step.requested_by
    concerned: dict[Action, tuple[str, ...]] = {
        "requested": (standing.approver,),
        "escalated": (standing.approver,),
        "reminded": (standing.approver, standing.delegate),
        "delegated": (standing.delegate,),
        "decided": (requester,),
        "expired": (requester,),
        "failed": (requester,),
        "cancelled": (standing.approver, standing.delegate, requester),
    }
    people = [name for name in concerned.get(step.action, ()) if name and name != step.actor]
    return [Letter(step, to, number) for number, to in enumerate(people, 1)]
