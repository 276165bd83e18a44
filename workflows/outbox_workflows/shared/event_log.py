"""Writing down what happened: events for others, and the audit trail. In the caller's transaction, of one tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
from temporalio import activity

from outbox_workflows.shared.storable_text import storable_json

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection

_EVENT = """
insert into app.event (tenant_id, stream, type, data, workflow_id, run_id)
values (app.current_tenant(), $1, $2, $3::jsonb, $4, $5)
returning event_id
"""
_AUDIT = """
insert into app.audit (tenant_id, workflow_id, run_id, actor, action, detail)
values (app.current_tenant(), $1, $2, $3, $4, $5::jsonb)
"""


class Origin(NamedTuple):
    """The workflow run that an event is about."""

    workflow_id: str | None
    run_id: str | None


async def emit(
    connection: Connection, stream: str, type_: str, data: dict[str, Any], *, of: Origin | None = None
) -> UUID:
    """Add an event to a stream and return its id, which is the id of its message; `of` the activity's own workflow.

    It goes through the outbox when the transaction commits, in order with the others of its stream.
    """
    event_id: UUID = await connection.fetchval(
        _EVENT, stream, type_, orjson.dumps(storable_json(data)).decode(), *(of or _own())
    )
    return event_id


async def audit(
    connection: Connection, actor: str, action: str, detail: dict[str, Any], *, of: Origin | None = None
) -> None:
    """Add to the audit trail of a workflow, without `of` the activity's own."""
    await connection.execute(_AUDIT, *(of or _own()), actor, action, orjson.dumps(storable_json(detail)).decode())


def _own() -> Origin:
    info = activity.info()
    return Origin(info.workflow_id, info.workflow_run_id)
