"""Starting a workflow: through the outbox, with the caller's transaction, or directly."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, Unpack, overload
from uuid import UUID

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy

from outbox.producer import start_workflow
from outbox.producer.drivers import AsyncConnection, SyncConnection
from outbox.producer.options import MessageOptions
from outbox_workflows.shared.arguments import faults_before

A = TypeVar("A")
OnDuplicate = Literal["reject", "accept"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where workflows are started and found."""

    client: Client
    task_queue: str
    schema: str


class Start(Generic[A]):
    """Starts workflows of one type. Called with an open connection it enqueues the start in its transaction.

    `workflow_id` is the caller's, or else the one that the family makes of the argument; used once, it is used up. By
    default a start becomes a dead letter if another message or caller has used its id; with `on_duplicate="accept"` it
    is settled as a duplicate. Raises ValueError that says what is wrong with an argument, before it is written down.
    """

    def __init__(
        self, place: Place, workflow: str, workflow_id: Callable[[A], str], faults: Callable[[A], list[str]]
    ) -> None:
        self._place, self._workflow, self._workflow_id, self._faults = place, workflow, workflow_id, faults

    @overload
    def __call__(
        self,
        connection: SyncConnection,
        argument: A,
        *,
        workflow_id: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        **options: Unpack[MessageOptions],
    ) -> UUID: ...
    @overload
    def __call__(
        self,
        connection: AsyncConnection,
        argument: A,
        *,
        workflow_id: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        **options: Unpack[MessageOptions],
    ) -> Coroutine[Any, Any, UUID]: ...
    def __call__(
        self,
        connection: SyncConnection | AsyncConnection,
        argument: A,
        *,
        workflow_id: str | None = None,
        on_duplicate: OnDuplicate = "reject",
        **options: Unpack[MessageOptions],
    ) -> UUID | Coroutine[Any, Any, UUID]:
        """Enqueue the start and return the message id; `options` are those of every message, see docs/producing.md."""
        place = self._place
        return start_workflow(
            connection,
            self._workflow,
            self._checked_id(argument, workflow_id),
            argument,
            schema=place.schema,
            task_queue=place.task_queue,
            on_duplicate=on_duplicate,
            **options,
        )

    async def directly(self, argument: A, *, workflow_id: str | None = None) -> WorkflowHandle[Any, Any]:
        """Start it now, without the outbox and outside of any transaction.

        Raises WorkflowAlreadyStartedError where its id was used before, also by a start through the outbox.
        """
        return await self._place.client.start_workflow(
            self._workflow,
            argument,
            id=self._checked_id(argument, workflow_id),
            task_queue=self._place.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )

    def _checked_id(self, argument: A, chosen: str | None) -> str:
        """The workflow id, of an argument that the workflow would take."""
        if faults := faults_before(argument, self._faults):
            raise ValueError("; ".join(faults))
        return self._workflow_id(argument) if chosen is None else chosen
