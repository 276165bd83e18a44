"""Queries and commands to a workflow that has been started."""

from __future__ import annotations

from itertools import count
from time import monotonic
from typing import Any, Generic, Self, TypeVar

import anyio
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from outbox.loops.backoff import Backoff
from outbox.model.errors import OutboxError
from outbox_workflows.client.start import Place

_LOOKS = Backoff(0.02, 1.0)
T = TypeVar("T")
R = TypeVar("R")


class CommandRefused(OutboxError):
    """The workflow refused a command, and nothing has changed. `code` is the refusal's type."""

    def __init__(self, message: str, *, code: str) -> None:
        self.code = code
        super().__init__(message)


class WorkflowUnknown(OutboxError):
    """Temporal has no such workflow, or it has ended and takes no commands. Its start may still be on its way."""


class Running(Generic[R]):
    """One workflow by its id. It need not have been started yet."""

    def __init__(self, place: Place, workflow_id: str, result: type[R]) -> None:
        self.workflow_id = workflow_id
        self.handle: WorkflowHandle[Any, R] = place.client.get_workflow_handle(workflow_id, result_type=result)
        """The SDK's own, for everything else."""

    async def started(self, *, within_s: float = 30.0) -> Self:
        """Wait until its start, once committed, has come through the outbox. Raises WorkflowUnknown if it does not."""
        ends_s = monotonic() + within_s
        for tries in count(1):
            try:
                await self.handle.describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or monotonic() >= ends_s:
                    raise self._translated(error) from error
                await anyio.sleep(_LOOKS.delay_s(tries))
            else:
                break
        return self

    async def result(self) -> R:
        """Wait for the end; return the result. Raises WorkflowFailureError when it failed or was cancelled."""
        try:
            return await self.handle.result()
        except RPCError as error:
            raise self._translated(error) from error

    async def query(self, name: str, answer: type[T]) -> T:
        """Ask, also after the end."""
        try:
            value: T = await self.handle.query(name, result_type=answer)
        except RPCError as error:
            raise self._translated(error) from error
        return value

    async def command(self, name: str, command: object, command_id: str, answer: type[T]) -> T:
        """Send a command and wait for the answer. Raises CommandRefused."""
        try:
            update_id = f"{name}-{command_id}"  # a repetition is answered as before, also after the end
            value: T = await self.handle.execute_update(name, command, id=update_id, result_type=answer)
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            code = cause.type if isinstance(cause, ApplicationError) and cause.type else type(cause).__name__
            message = cause.message if isinstance(cause, ApplicationError) else str(cause)
            raise CommandRefused(message, code=code) from error
        except RPCError as error:
            raise self._translated(error) from error
        return value

    def _translated(self, error: RPCError) -> Exception:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return error
        return WorkflowUnknown(f"workflow {self.workflow_id!r}: {error.message}")
