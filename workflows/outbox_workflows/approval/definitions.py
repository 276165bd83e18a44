"""The two approvals as Temporal runs them. What may happen decides `case.Case`, at once; here it is recorded in order.

Handlers of updates and signals only change the case and queue the step. One loop records the steps, one after the
other, and lets time pass. So the first valid decision wins, and the audit trail has the order of the decisions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.approval.state_machine import Case, Refused, faults, letters
    from outbox_workflows.approval.types import (
        NOTES,
        ApprovalCommand,
        ApprovalStep,
        EscalatingRequest,
        Letter,
        Request,
        SimpleRequest,
        Standing,
        Verb,
    )
    from outbox_workflows.shared.arguments import Misfit, begun, read, refuse
    from outbox_workflows.shared.failures import reason_of

RECORD, MAIL = "approval.record", "approval.mail"
_PATIENT = RetryPolicy(initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=30))
"""Without an end: what is decided waits until the database is back."""
_BOUNDED = RetryPolicy(maximum_interval=timedelta(seconds=60), non_retryable_error_types=["MailRefused"])
"""For as long as `mail_within_s` says."""


class _Approval:
    """What both kinds share: everything but the shape of the request."""

    def __init__(self, kind: type[Request], given: Sequence[object]) -> None:
        request, self._faults = begun(kind, given, faults)
        self._request = request
        self._case = Case(request, workflow.now(), self._faults)
        self._steps: deque[ApprovalStep] = deque()
        self._recorded = self._case.standing.revision
        self._mails: set[asyncio.Task[None]] = set()
        self._failure: str | None = None
        if request.earlier is None and not self._faults:
            self._steps.append(self._case.open())

    @workflow.query
    def standing(self) -> Standing:
        """The state of the approval."""
        return self._case.standing

    @workflow.update
    async def approve(self, *command: object) -> Standing:
        """Decide in favour; answered when the decision is recorded."""
        return await self._answer("approve", command)

    @approve.validator
    def _may_approve(self, *command: object) -> None:
        self._check("approve", command)

    @workflow.signal(name="approve")
    def approve_unanswered(self, *command: object) -> None:
        """The same from the outbox; a refusal becomes a step."""
        self._hear("approve", command)

    @workflow.update
    async def reject(self, *command: object) -> Standing:
        """Decide against; answered when the decision is recorded."""
        return await self._answer("reject", command)

    @reject.validator
    def _may_reject(self, *command: object) -> None:
        self._check("reject", command)

    @workflow.signal(name="reject")
    def reject_unanswered(self, *command: object) -> None:
        """The same from the outbox; a refusal becomes a step."""
        self._hear("reject", command)

    @workflow.update
    async def delegate(self, *command: object) -> Standing:
        """Let another person decide as well. It answers when that is recorded."""
        return await self._answer("delegate", command)

    @delegate.validator
    def _may_delegate(self, *command: object) -> None:
        self._check("delegate", command)

    @workflow.signal(name="delegate")
    def delegate_unanswered(self, *command: object) -> None:
        """The same from the outbox; a refusal becomes a step."""
        self._hear("delegate", command)

    @workflow.update
    async def cancel(self, *command: object) -> Standing:
        """Take the request back; answered when that is recorded."""
        return await self._answer("cancel", command)

    @cancel.validator
    def _may_cancel(self, *command: object) -> None:
        self._check("cancel", command)

    @workflow.signal(name="cancel")
    def cancel_unanswered(self, *command: object) -> None:
        """The same from the outbox; a refusal becomes a step."""
        self._hear("cancel", command)

    def _check(self, verb: Verb, given: Sequence[object]) -> None:
        try:
            self._case.check(verb, read(ApprovalCommand, given))
        except Misfit as misfit:
            raise ApplicationError(str(misfit), type="InvalidCommand", non_retryable=True) from None
        except Refused as refusal:
            raise ApplicationError(str(refusal), type=refusal.code, non_retryable=True) from None

    def _hear(self, verb: Verb, given: Sequence[object]) -> None:
        if self._faults:
            return
        try:
            command = read(ApprovalCommand, given)
        except Misfit as misfit:
            self._queue(self._case.mishear(verb, str(misfit)))
        else:
            self._queue(self._case.hear(verb, command, workflow.now()))

    async def _answer(self, verb: Verb, given: Sequence[object]) -> Standing:
        """Carry out what the validator has let through, and wait until it is in the database."""
        self._queue(self._case.take(verb, read(ApprovalCommand, given), workflow.now()))
        revision = self._case.standing.revision
        await workflow.wait_condition(lambda: self._recorded >= revision or self._failure is not None)
        if self._failure is not None:
            raise ApplicationError(self._failure, type="ApprovalFailed", non_retryable=True)
        return self._case.standing

    def _queue(self, step: ApprovalStep | None) -> None:
        if step is not None:
            self._steps.append(step)

    async def _run(self) -> Standing:
        """Follow the approval to its end, which a cancellation from Temporal may be; or to the end of this run."""
        refuse(self._faults)
        course = asyncio.create_task(self._course())
        try:
            await asyncio.shield(course)
        except asyncio.CancelledError:
            withdrawn = self._case.withdraw(workflow.cancellation_reason() or "cancelled in Temporal", workflow.now())
            self._queue(withdrawn)
            await course
            await self._course()  # nothing is left but what came when the course had just ended
            if withdrawn is not None and self._failure is None:
                raise
        if self._failure is not None:
            raise ApplicationError(self._failure, type="ApprovalFailed", non_retryable=True)
        if not self._case.over:
            workflow.continue_as_new(replace(self._request, earlier=self._case.earlier))
        return self._case.standing

    async def _course(self) -> None:
        """Record what happens and let time pass, until all is over or this run's history is long enough."""
        while True:
            await self._record()
            if self._leaving() and self._quiet():
                return
            try:
                await workflow.wait_condition(
                    lambda: bool(self._steps) or (self._leaving() and self._quiet()),
                    timeout=self._until_due(),
                    timeout_summary=f"{self._case.standing.approver} is reminded, or the next is asked",
                )
            except TimeoutError:
                self._queue(self._case.pass_time(workflow.now()))

    def _leaving(self) -> bool:
        return self._case.over or workflow.info().is_continue_as_new_suggested()

    def _quiet(self) -> bool:
        """Whether nothing is under way that a run would take with it when it ends."""
        return not self._steps and not self._mails and workflow.all_handlers_finished()

    def _until_due(self) -> timedelta | None:
        due = self._case.due
        return None if due is None else max(due - workflow.now(), timedelta())

    async def _record(self) -> None:
        """Record the queued steps, in order. A step that is refused for good ends the approval."""
        while self._steps:
            step = self._steps[0]
            try:
                await workflow.execute_activity(
                    RECORD,
                    step,
                    activity_id=step.name,
                    start_to_close_timeout=timedelta(seconds=self._request.step_timeout_s),
                    retry_policy=_PATIENT,
                    summary=f"{step.action} by {step.actor}",
                )
            except ActivityError as error:
                self._give_up(step, error)
                continue
            self._steps.popleft()
            self._recorded = step.standing.revision
            for letter in letters(step):
                mail = asyncio.create_task(self._mail(letter))
                self._mails.add(mail)
                mail.add_done_callback(self._mails.discard)

    def _give_up(self, step: ApprovalStep, error: ActivityError) -> None:
        if step.action in NOTES:  # what was decided stays decided
            workflow.logger.warning("%s could not be recorded: %s", step.name, reason_of(error))
            self._steps.popleft()
            self._recorded = step.standing.revision
            return
        self._steps.clear()
        if step.action != "failed":
            self._queue(self._case.fail(f"{step.name} could not be recorded: {reason_of(error)}", workflow.now()))
        self._failure = self._failure or self._case.standing.comment

    async def _mail(self, letter: Letter) -> None:
        """Send a mail in the background: no decision waits for a mail server."""
        try:
            await workflow.execute_activity(
                MAIL,
                letter,
                activity_id=letter.name,
                start_to_close_timeout=timedelta(seconds=self._request.step_timeout_s),
                schedule_to_close_timeout=timedelta(seconds=self._request.mail_within_s),
                retry_policy=_BOUNDED,
                summary=f"to {letter.to}",
            )
        except ActivityError as error:
            self._queue(self._case.note("unsent", to=letter.to, about=letter.step.name, reason=reason_of(error)))


@workflow.defn(name="Approval")
class ApprovalWorkflow(_Approval):
    """One approver, until answered, cancelled or expired."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        super().__init__(SimpleRequest, given)

    @workflow.run
    async def run(self, *given: object) -> Standing:  # noqa: ARG002 - the constructor has taken it
        """Return how it ended. Fails when a step could not be recorded; is CANCELED when Temporal cancelled it."""
        return await self._run()


@workflow.defn(name="EscalatingApproval")
class EscalatingApproval(_Approval):
    """A chain of approvers; if one does not answer in time, the next is asked."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        super().__init__(EscalatingRequest, given)

    @workflow.run
    async def run(self, *given: object) -> Standing:  # noqa: ARG002 - the constructor has taken it
        """Return how it ended. Fails when a step could not be recorded; is CANCELED when Temporal cancelled it."""
        return await self._run()


WORKFLOWS = (ApprovalWorkflow, EscalatingApproval)
