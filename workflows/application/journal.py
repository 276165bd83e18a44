"""Writing down what happened: events for others, and the audit trail. In the caller's transaction, of one tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
from temporalio import activity

from workflows.application.texts import storable_json

if TYPE_CHECKING:
    from outbox.database import Connection

_EVENT = """
insert into app.event (tenant_id, stream, type, data, workflow_id, run_id)
values (app.current_tenant(), $1, $2, $3::jsonb, $4, $5)
returning event_id
"""
_AUDIT = """
insert into app.audit (tenant_id, workflow_id, run_id, actor, action, detail)
values (app.current_tenant(), $1, $2, $3, $4, $5::jsonb)
"""


async def emit(connection: Connection, stream: str, type_: str, data: dict[str, Any]) -> UUID:
    """Add an event to a stream, as the current activity's workflow; return its id, which is the id of its message.

    It goes through the outbox when the transaction commits, in order with the others of its stream.
    """
    info = activity.info()
    event_id: UUID = await connection.fetchval(
        _EVENT, stream, type_, orjson.dumps(storable_json(data)).decode(), info.workflow_id, info.workflow_run_id
    )
    return event_id


async def audit(connection: Connection, actor: str, action: str, detail: dict[str, Any]) -> None:
    """Add to the audit trail of the current activity's workflow."""
    info = activity.info()
    await connection.execute(
        _AUDIT, info.workflow_id, info.workflow_run_id, actor, action, orjson.dumps(storable_json(detail)).decode()
    )
