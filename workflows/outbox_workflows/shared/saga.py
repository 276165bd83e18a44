"""A saga: steps forward, and for each what undoes it, registered before it begins and run in reverse order. Pure.

The steps run in a task of their own, and so does the undoing. The waiting task may be cancelled by Temporal, or
by a command. A cancellation reaches the steps while they can be undone, and never the undoing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.shared.failures import reason_of, type_of
    from outbox_workflows.shared.saga_types import Cancel, SagaProgress, SagaTimeouts, Undo
    from outbox_workflows.shared.storable_text import storable

T = TypeVar("T")
_RETRY = RetryPolicy(initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=30))
_RETRY_UNDO = RetryPolicy(initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(minutes=5))
_LEAST_UNDO_S = 60.0
"""Each undoing gets so long, even where those before it have used up the time, or the whole time if that is shorter."""
_REFUSALS_KEPT = 20


@dataclass(frozen=True, slots=True)
class SagaStep:
    """One step: an activity under an id of its own, which is how both the database and the undoing know it."""

    name: str
    activity: str
    percent: int
    """How far the workflow is when it is done."""
    undo: str | None = None
    """The activity that takes it back."""
    final: bool = False
    """Once it has begun nothing is cancelled any more, and it is tried without end."""
    long: bool = False
    """One try may take as long as other steps with all their tries. Heartbeats show that a worker is busy with it."""
    whole: bool = False
    """A cancellation waits for its end: what it does outside of the database cannot be rolled back."""


class Saga:
    """What was begun, done and undone, for one run of a workflow."""

    def __init__(
        self, tenant_id: str, actor: str, patience: SagaTimeouts, argument: Callable[[Undo], object] = lambda undo: undo
    ) -> None:
        """`argument` makes the argument of an undoing activity from the order that all families share."""
        self._tenant_id, self._actor, self._patience, self._argument = tenant_id, actor, patience, argument
        self._steps: asyncio.Task[Any] | None = None
        self._to_undo: list[SagaStep] = []
        self._cancel: Cancel | None = None
        self._cancelled_by_temporal = False
        self._heard: set[str] = set()
        self._status: Any = "running"
        self._step, self._percent, self._final, self._error = "", 0, False, ""
        self._done: list[str] = []
        self._undone: list[str] = []
        self._left: list[str] = []
        self._refused: list[str] = []
        self.begun: list[str] = []

    @property
    def cancellable(self) -> bool:
        """Whether there is still something to cancel, and a way back."""
        return not self._final and self._status == "running"

    @property
    def _cancelled(self) -> bool:
        return self._cancel is not None or self._cancelled_by_temporal

    def progress(self) -> SagaProgress:
        """How far it is."""
        by = self._cancel.actor if self._cancel else ""
        lists = [list(names) for names in (self._done, self._undone, self._left, self._refused)]
        done, undone, left, refused = lists
        return SagaProgress(self._status, self._step, self._percent, done, undone, left, by, refused, self._error)

    def hear(self, command_id: str) -> bool:
        """Note a command, and say whether it is new."""
        new = command_id not in self._heard
        self._heard.add(command_id)
        return new

    def has_heard(self, command_id: str) -> bool:
        """Whether a command came before."""
        return command_id in self._heard

    def note_refusal(self, command_id: str, why: str) -> None:
        """Keep a refused command that could get no answer, for the query `progress`."""
        self._refused = [*self._refused, f"{command_id}: {why}"][-_REFUSALS_KEPT:]

    def cancel(self, command: Cancel) -> None:
        """Have the steps end and be undone. Only while `cancellable`."""
        if self._cancel is None:
            self._cancel = replace(command, actor=storable(command.actor), reason=storable(command.reason))
            if self._steps is not None:
                self._steps.cancel()

    async def take(self, step: SagaStep, argument: object, kind: type[T]) -> T:
        """Take a step. Raises what it failed with, or that the saga is cancelled."""
        self._go_on()
        self.begun.append(step.name)
        self._step, self._final = step.name, step.final
        if step.undo:
            self._to_undo.append(step)
        patience = self._patience
        result: T = await workflow.execute_activity(
            step.activity,
            argument,
            activity_id=step.name,
            result_type=kind,
            schedule_to_close_timeout=None if step.final else patience.of(patience.step_s),
            start_to_close_timeout=patience.of(patience.step_s if step.long else patience.attempt_s),
            heartbeat_timeout=None if step.whole else patience.of(patience.heartbeat_s),
            retry_policy=_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        self._done.append(step.name)
        self._percent = step.percent
        self._go_on()
        return result

    def commit(self) -> None:
        """From here on nothing is undone."""
        self._to_undo.clear()

    async def run(self, steps: Coroutine[Any, Any, T], if_cancelled: T | None = None) -> T:
        """Take the steps and return what they return, or undo them all.

        Returns `if_cancelled` after a command. Raises CancelledError after Temporal's cancellation, ApplicationError of
        the type that a step failed with, or of type NotUndone where something is left.
        """
        self._steps = forward = asyncio.create_task(steps)
        await self._until(forward.done)
        error = CancelledError() if forward.cancelled() else forward.exception()
        if error is None:
            self._status = "done"
            await self._until(workflow.all_handlers_finished)
            return forward.result()
        if not isinstance(error, FailureError):
            raise error  # a bug fails the workflow's task, until a fixed worker comes; nothing is undone for it
        await self._undo_for(error)
        if if_cancelled is not None and self._cancel is not None and not (self._left or self._cancelled_by_temporal):
            return if_cancelled
        raise self._end_of(error) from error

    async def _undo_for(self, error: FailureError) -> None:
        self._status, self._error = "undoing", self._cause_of(error)
        undoing = asyncio.create_task(self._undo_all())
        await self._until(undoing.done)
        undoing.result()
        self._status = "failed" if self._left else "undone"
        await self._until(workflow.all_handlers_finished)

    def _end_of(self, error: FailureError) -> FailureError:
        if self._left:
            what = ", ".join(self._left)
            message = f"{_reason(error)}; then undoing failed, and is left to be done by hand: {what}"
            return ApplicationError(message, *self._left, type="NotUndone")
        if self._cancelled_by_temporal:
            return CancelledError("cancelled, and undone")
        type_ = type_of(error) or "StepFailed"
        return ApplicationError(f"{self._step} failed: {_reason(error)}", type=type_, non_retryable=True)

    def _cause_of(self, error: FailureError) -> str:
        """Why it has to be undone, for the audit trail."""
        if not self._cancelled:
            return _reason(error)
        why = self._cancel.reason if self._cancel else workflow.cancellation_reason()
        return f"cancelled: {why}" if why else "cancelled"

    async def _undo_all(self) -> None:
        deadline = workflow.now() + self._patience.of(self._patience.undo_s)
        for step in reversed(self._to_undo):
            rest_s = (deadline - workflow.now()).total_seconds()
            try:
                await self._undo(step, max(rest_s, min(_LEAST_UNDO_S, self._patience.undo_s)))
            except ActivityError:
                self._left.append(step.name)
            else:
                self._undone.append(step.name)
        self._percent = self._percent if self._left else 0

    async def _undo(self, step: SagaStep, within_s: float) -> None:
        patience, actor = self._patience, self._cancel.actor if self._cancel else self._actor
        order = Undo(self._tenant_id, step.name, actor, self._error, self._step, self._cancelled, [*self._left])
        await workflow.execute_activity(
            step.undo or "",
            self._argument(order),
            activity_id=f"undo-{step.name}",
            schedule_to_close_timeout=patience.of(within_s),
            start_to_close_timeout=patience.of(patience.attempt_s),
            heartbeat_timeout=patience.of(patience.heartbeat_s),
            retry_policy=_RETRY_UNDO,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )

    def _go_on(self) -> None:
        """Stop here if the saga is cancelled: a step that ended well all the same hides its cancellation."""
        if self._final:
            return
        self._cancelled_by_temporal = workflow.cancellation_reason() is not None
        if self._cancelled:
            raise CancelledError("cancelled between steps")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait. Temporal's cancellation, which comes once, is passed on to the steps, or comes too late."""
        try:
            await workflow.wait_condition(condition)
        except asyncio.CancelledError:
            if workflow.cancellation_reason() is None:
                raise  # the worker lets go of the workflow
            if self.cancellable and self._steps is not None:
                self._cancelled_by_temporal = True
                self._steps.cancel()
            await workflow.wait_condition(condition)


def _reason(error: FailureError) -> str:
    return "cancelled" if is_cancelled_exception(error) else reason_of(error)
