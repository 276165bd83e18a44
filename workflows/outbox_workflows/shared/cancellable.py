"""The answers of every workflow with a cancellable saga: how far it is, and the command to cancel. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.shared.arguments import Misfit, command_id_of, read
    from outbox_workflows.shared.saga import Saga
    from outbox_workflows.shared.saga_types import Cancel, SagaProgress

C = TypeVar("C")
Why = tuple[str, ...]
"""Why a command is refused: the error's type and its message, or nothing."""


class CancellableSaga:
    """The base of these workflows."""

    _saga: Saga

    @workflow.query
    def progress(self) -> SagaProgress:
        """How far it is."""
        return self._saga.progress()

    @workflow.update
    def cancel(self, *command: object) -> SagaProgress:
        """Undo everything and end. Refused, with type TooLate, once there is no way back."""
        return self._cancel(read(Cancel, command))

    @cancel.validator
    def _may_cancel(self, *command: object) -> None:
        refuse_update(why_not(Cancel, command, self._why_not_cancel))

    @workflow.signal(name="cancel")
    def cancel_by_signal(self, *command: object) -> None:
        """As the update `cancel`; the progress shows a refusal."""
        self._hear(Cancel, command, self._why_not_cancel, self._cancel)

    def _cancel(self, command: Cancel) -> SagaProgress:
        if self._saga.hear(command.command_id):
            self._saga.cancel(command)
        return self._saga.progress()

    def _why_not_cancel(self, command: Cancel) -> Why:
        if not command.command_id:
            return "InvalidCancel", "command_id is missing"
        if self._saga.cancellable or self._saga.has_heard(command.command_id):
            return ()
        return "TooLate", "there is nothing to cancel any more: see the progress"

    def _hear(
        self, kind: type[C], given: Sequence[object], reason: Callable[[C], Why], take: Callable[[C], SagaProgress]
    ) -> None:
        """Take a command that gets no answer, such as a signal."""
        if why := why_not(kind, given, reason):
            self._saga.note_refusal(command_id_of(given), why[1])
        else:
            take(read(kind, given))


def why_not(kind: type[C], given: Sequence[object], reason: Callable[[C], Why]) -> Why:
    """Why a command is refused, be it that it cannot be read."""
    try:
        return reason(read(kind, given))
    except Misfit as misfit:
        return f"Invalid{kind.__name__}", str(misfit)


def refuse_update(why: Why) -> None:
    """Raise what an update is refused with, if anything."""
    if why:
        type_, message = why
        raise ApplicationError(message, type=type_, non_retryable=True)
