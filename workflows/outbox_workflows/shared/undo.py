"""Undoes a step of a saga, even if it is not known whether the step did anything or still runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from temporalio import activity

from outbox_workflows.shared.database import TAKE

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox_workflows.shared.database import Application

_UNDONE = "undone"
_TAKE_BACK = """
update app.step set activity = $3 where workflow_id = $1 and step = $2 and activity <> $3
returning result
"""


async def undo(
    application: Application, tenant_id: UUID, step: str, work: Callable[[Connection, Any], Awaitable[None]]
) -> bool:
    """Take back a step that `Application.once` took in the current activity's workflow; say whether there was anything.

    `step` is its activity id. `work` gets what the step returned, as JSON has it, and runs only where the step had its
    effect and has not been taken back. From then on the step is refused, should some worker still be at it: it would
    find its place taken, and a transaction that holds the place is waited for.

    Raises DatabaseUnavailable and DatabaseRefused. Both are worth another try: a half-undone saga is of no use.
    """
    info = activity.info()
    async with application.as_tenant(tenant_id, info.activity_type) as connection:
        if await connection.fetchval(TAKE, tenant_id, info.workflow_id, step, _UNDONE):
            return False
        row = await connection.fetchrow(_TAKE_BACK, info.workflow_id, step, _UNDONE)
        if row is None:
            return False
        await work(connection, orjson.loads(row["result"]))
        return True
