"""The workflow of an organisation's bootstrap: a saga that announces every step through the outbox.

| step                | does                                  | undone by            |
|---------------------|---------------------------------------|----------------------|
| announce            | says that the workflow runs           |                      |
| configure-dns       | has the name lead to the application  | remove-dns           |
| create-organization | makes the organisation's row          | conclude             |
| create-invitations  | makes the invitations                 | revoke-invitations   |
| send-invitation-n   | mails the nth one                     |                      |
| complete            | makes it active; there is no way back |                      |
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.organization.types import (
        REFUSED,
        Bootstrap,
        Bootstrapped,
        BootstrapProgress,
        Ending,
        Invitation,
        Sending,
        Site,
    )
    from outbox_workflows.organization.validation import faults
    from outbox_workflows.shared.arguments import begun, refuse
    from outbox_workflows.shared.failures import reason_of, type_of

T = TypeVar("T")

_TRY = timedelta(seconds=15)
"""One try of a step: longer than the database and the mail server are given for their answers."""
_FORWARD = timedelta(hours=1)
"""All tries of a step. What is away for longer ends the bootstrap."""
_BACK = timedelta(days=1)
"""All tries of a compensation: what it leaves behind must be cleaned up by hand."""
_RETRIES = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)


@workflow.defn(name="OrganizationBootstrap")
class OrganizationBootstrapWorkflow:
    """Bootstraps one organisation, or leaves nothing of it but a row that says why not."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        self._bootstrap, self._faults = begun(Bootstrap, given, faults)
        self._progress = BootstrapProgress(steps=5 + len(set(self._bootstrap.invitations)))
        self._undo: list[str] = []
        """Compensations of what may have been done, in that order."""

    @workflow.query
    def progress(self) -> BootstrapProgress:
        """How far it is."""
        return self._progress

    @workflow.run
    async def run(self, *given: object) -> Bootstrapped:  # noqa: ARG002 - the constructor has taken it
        """Take the steps. Fails, or is cancelled, once everything is undone; at once with type InvalidRequest."""
        refuse(self._faults)
        try:
            done = await self._forward(self._bootstrap)
        except (asyncio.CancelledError, FailureError) as error:
            await _to_its_end(self._back(error))
            raise
        self._progress = replace(self._progress, state="completed")
        return done

    async def _forward(self, bootstrap: Bootstrap) -> Bootstrapped:
        await self._step("announce", "organization.announce", bootstrap)
        domain = await self._step("configure-dns", "organization.configure_dns", bootstrap, str, undo="remove-dns")
        site = Site(bootstrap, domain)
        await self._step("create-organization", "organization.create", site)
        invitations = await self._step(
            "create-invitations", "organization.invite", site, list[Invitation], undo="revoke-invitations"
        )
        for number, invitation in enumerate(invitations, 1):
            await self._step(f"send-invitation-{number}", "organization.send_invitation", Sending(site, invitation))
        # Others will act on its event, so a cancellation from here on comes too late.
        await _to_its_end(self._take("complete", "organization.complete", site, within=None))
        return Bootstrapped(bootstrap.organization_id, domain, len(invitations))

    async def _step(
        self, step: str, name: str, argument: object, result: type[T] | None = None, *, undo: str | None = None
    ) -> T:
        """Take one step. A cancellation waits for its end, and comes after it."""
        if undo is not None:
            self._undo.append(undo)
        try:
            outcome = await self._take(step, name, argument, result)
        except ActivityError as error:
            if undo is not None and type_of(error) == REFUSED:
                self._undo.remove(undo)
            raise
        if workflow.cancellation_reason() is not None:  # an activity that completed all the same does not report it
            raise asyncio.CancelledError
        return outcome

    async def _take(
        self,
        step: str,
        name: str,
        argument: object,
        result: type[T] | None = None,
        *,
        within: timedelta | None = _FORWARD,
    ) -> T:
        """Take a step, trying again for so long; None is without end, for the one that has no way back."""
        self._progress = replace(self._progress, step=step)
        outcome: T = await workflow.execute_activity(
            name,
            argument,
            activity_id=step,
            result_type=result,
            start_to_close_timeout=_TRY,
            schedule_to_close_timeout=within,
            retry_policy=_RETRIES,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        self._progress = replace(self._progress, done=[*self._progress.done, step])
        return outcome

    async def _back(self, error: BaseException) -> None:
        """Undo what was done, the last first, and write down how it ended."""
        cancelled = is_cancelled_exception(error)
        outcome = "cancelled" if cancelled else "failed"
        reason = workflow.cancellation_reason() or outcome if cancelled else reason_of(error)
        came_to = self._progress.step
        self._progress = replace(self._progress, state="undoing", error=reason)
        for step in reversed(self._undo):
            await self._compensate(step, f"organization.{step.replace('-', '_')}", self._bootstrap)
        ending = Ending(self._bootstrap, outcome, came_to, reason, self._progress.left)
        await self._compensate("conclude", "organization.conclude", ending)
        self._progress = replace(self._progress, state=outcome, step=came_to)

    async def _compensate(self, step: str, name: str, argument: object) -> None:
        """Undo one step. If it cannot be undone, note it and go on with the others."""
        self._progress = replace(self._progress, step=step)
        try:
            await workflow.execute_activity(
                name,
                argument,
                activity_id=step,
                start_to_close_timeout=_TRY,
                schedule_to_close_timeout=_BACK,
                retry_policy=_RETRIES,
            )
        except ActivityError as error:
            workflow.logger.error("%s is left undone: %s", step, reason_of(error))
            self._progress = replace(self._progress, left=[*self._progress.left, step])
        else:
            self._progress = replace(self._progress, undone=[*self._progress.undone, step])


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work that no cancellation may stop."""
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise


WORKFLOWS = (OrganizationBootstrapWorkflow,)
