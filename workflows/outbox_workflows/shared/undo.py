"""Undoes a step of a saga, even if it is not known whether the step did anything or still runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from temporalio import activity

from outbox_workflows.shared.database import TAKE
from outbox_workflows.shared.heartbeat import heartbeating
from outbox_workflows.shared.saga_types import Undo

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox_workflows.shared.database import Application

_UNDONE = "undone"
_TAKE_BACK = """
update app.step set activity = $3 where workflow_id = $1 and step = $2 and activity <> $3
returning result
"""


async def undo(application: Application, order: Undo, work: Callable[[Connection, Any], Awaitable[None]]) -> bool:
    """Take back a step that `Application.once` took in the current activity's workflow; return whether there was one.

    `work` gets what the step returned, as JSON has it, and runs only where the step had its effect and has not been
    taken back. From then on the step is refused, should some worker still be at it: it would find its place taken, and
    a transaction that holds the place is waited for.

    Raises DatabaseUnavailable and DatabaseRefused. Both are worth another try: a half-undone saga is of no use.
    """
    async with _barring(application, order) as (connection, info):
        row = await connection.fetchrow(_TAKE_BACK, info.workflow_id, order.step, _UNDONE)
        if row is not None:
            await work(connection, orjson.loads(row["result"]))
        return row is not None


async def bar(application: Application, order: Undo) -> None:
    """Refuse a step from now on, if it has not had its effect. What it does outside of the database is undone then."""
    async with _barring(application, order):
        pass


@asynccontextmanager
async def _barring(application: Application, order: Undo) -> AsyncIterator[tuple[Connection, activity.Info]]:
    info, tenant_id = activity.info(), UUID(order.tenant_id)
    async with heartbeating(), application.as_tenant(tenant_id, info.activity_type) as connection:
        await connection.execute(TAKE, tenant_id, info.workflow_id, order.step, _UNDONE)
        yield connection, info
