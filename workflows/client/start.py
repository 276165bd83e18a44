"""Starting a workflow: through the outbox, with the caller's transaction, or directly."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Unpack, overload
from uuid import UUID

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy

from outbox.producer import start_workflow
from outbox.producer.drivers import AsyncConnection, SyncConnection
from outbox.producer.options import MessageOptions

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Place:
    """Where workflows are started and found."""

    client: Client
    task_queue: str
    schema: str


class Start(Generic[A]):
    """Starts workflows of one type. Called with an open connection it enqueues the start in its transaction."""

    def __init__(self, place: Place, workflow: str, workflow_id: Callable[[A], str]) -> None:
        self._place, self._workflow, self._workflow_id = place, workflow, workflow_id

    @overload
    def __call__(self, connection: SyncConnection, argument: A, **options: Unpack[MessageOptions]) -> UUID: ...
    @overload
    def __call__(
        self, connection: AsyncConnection, argument: A, **options: Unpack[MessageOptions]
    ) -> Coroutine[Any, Any, UUID]: ...
    def __call__(
        self, connection: SyncConnection | AsyncConnection, argument: A, **options: Unpack[MessageOptions]
    ) -> UUID | Coroutine[Any, Any, UUID]:
        """Enqueue the start and return the message id; `options` are those of every message, see docs/producing.md."""
        place = self._place
        return start_workflow(
            connection,
            self._workflow,
            self._workflow_id(argument),
            argument,
            schema=place.schema,
            task_queue=place.task_queue,
            **options,
        )

    async def directly(self, argument: A) -> WorkflowHandle[Any, Any]:
        """Start it now, without the outbox and outside of any transaction.

        Raises WorkflowAlreadyStartedError where its id was used before, also by a start through the outbox.
        """
        return await self._place.client.start_workflow(
            self._workflow,
            argument,
            id=self._workflow_id(argument),
            task_queue=self._place.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )
