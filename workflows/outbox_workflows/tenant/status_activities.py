"""What changes the standing of a tenant that is there: suspended, active again, deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from uuid import UUID

from temporalio import activity

from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.heartbeat import heartbeating
from outbox_workflows.shared.refusal import refuse
from outbox_workflows.shared.saga_types import Undo
from outbox_workflows.shared.undo import undo
from outbox_workflows.tenant import validation as rules
from outbox_workflows.tenant.types import TenantOrder, Turned

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox_workflows.shared.database import Application

_BATCH = 1000
_STATUS = "select status from app.tenant where tenant_id = $1 for update"
_HOLD_ALONE = "select app.hold_tenant($1, alone => true)"
_TURN = "update app.tenant set status = $2, changed_at = now() where tenant_id = $1"
_REOPEN = "update app.tenant set status = $2, changed_at = now() where tenant_id = $1 and status = 'suspended'"
_TABLES = "select app.tables_of_a_tenant()"
_DELETE = "select app.delete_rows($1, $2)"
_DELETED = """
select detail ->> 'table' as table, sum((detail ->> 'rows')::integer)::integer as rows from app.audit
where tenant_id = $1 and workflow_id = $2 and action = 'rows deleted' group by 1 order by 1
"""
_FORGET = "update app.tenant set name = 'deleted', changed_at = now() where tenant_id = $1"


class StandingActivities:
    """The activities of suspension, reactivation and deletion."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def all(self) -> list[Callable[..., Any]]:
        """What the worker registers."""
        return [
            self.suspend_tenant,
            self.reactivate_tenant,
            self.close_tenant,
            self.reopen_tenant,
            self.condemn_tenant,
            self.delete_rows,
            self.forget_tenant,
        ]

    @activity.defn
    async def suspend_tenant(self, order: TenantOrder) -> Turned:
        """Suspend an active tenant: event tenant.suspended. Fails for good with type UnknownTenant or WrongStatus."""
        return await self._turn(order, "suspended", {"active", "suspended"}, "tenant suspended", "tenant.suspended")

    @activity.defn
    async def reactivate_tenant(self, order: TenantOrder) -> Turned:
        """Have it active again: event tenant.reactivated. Fails for good with type UnknownTenant or WrongStatus."""
        return await self._turn(order, "active", {"active", "suspended"}, "tenant reactivated", "tenant.reactivated")

    @activity.defn
    async def close_tenant(self, order: TenantOrder) -> Turned:
        """Suspend a tenant that is to be deleted. Fails for good with type UnknownTenant or WrongStatus."""
        return await self._turn(order, "suspended", {"active", "suspended"}, "deletion begun")

    @activity.defn
    async def reopen_tenant(self, order: Undo) -> bool:
        """Give a tenant that is not to be deleted after all its former status; say whether it had lost it."""

        async def work(connection: Connection, closed: dict[str, str]) -> None:
            await connection.execute(_REOPEN, UUID(order.tenant_id), closed["was"])
            await audit(connection, order.actor, "deletion given up", {"reason": order.reason})

        if not rules.is_uuid(order.tenant_id):
            return False
        return await undo(self._application, order, work)

    @activity.defn
    async def condemn_tenant(self, order: TenantOrder) -> Turned:
        """Mark a tenant as deleted, unless it has been reactivated. From here on there is no way back."""
        return await self._turn(order, "deleted", {"suspended"}, "tenant condemned")

    @activity.defn
    async def delete_rows(self, order: TenantOrder) -> dict[str, int]:
        """Delete the tenant's rows from all tables, in batches, those first that refer to others; count them by table.

        Each batch is audited in its own transaction, so a repetition goes on where it was and forgets nothing.
        """
        tenant_id = UUID(order.tenant_id)
        async with heartbeating():
            async with self._application.as_tenant(tenant_id, "list the tables") as connection:
                tables = [row[0] for row in await connection.fetch(_TABLES)]
            for table in tables:
                while await self._delete_batch(tenant_id, order.requested_by, table) >= _BATCH:
                    pass
            async with self._application.as_tenant(tenant_id, "count what was deleted") as connection:
                rows = await connection.fetch(_DELETED, tenant_id, activity.info().workflow_id)
        return {row["table"]: row["rows"] for row in rows}

    async def _delete_batch(self, tenant_id: UUID, actor: str, table: str) -> int:
        async with self._application.as_tenant(tenant_id, f"delete rows of {table}") as connection:
            rows: int = await connection.fetchval(_DELETE, table, _BATCH)
            if rows:
                await audit(connection, actor, "rows deleted", {"table": table, "rows": rows})
            return rows

    @activity.defn
    async def forget_tenant(self, order: TenantOrder) -> None:
        """Blank what is left, the tenant's name, and say that it is deleted: event tenant.deleted."""

        async def work(connection: Connection) -> None:
            await connection.execute(_FORGET, UUID(order.tenant_id))
            await audit(connection, order.requested_by, "tenant deleted", {"reason": order.reason})
            await emit(connection, f"tenant-{order.tenant_id}", "tenant.deleted", {})

        await self._application.once(UUID(order.tenant_id), type(None), work, though_deleted=True)

    async def _turn(
        self, order: TenantOrder, status: str, allowed: Collection[str], action: str, event: str | None = None
    ) -> Turned:
        """Change a tenant's status. If it has that status already, only the audit trail gets a line."""
        if not rules.is_uuid(order.tenant_id):
            refuse("InvalidRequest", "tenant_id is no UUID")
        tenant_id = UUID(order.tenant_id)

        async def work(connection: Connection) -> Turned:
            if status == "deleted":
                await connection.execute(_HOLD_ALONE, tenant_id)
            was = await connection.fetchval(_STATUS, tenant_id)
            if was is None:
                refuse("UnknownTenant", "there is no such tenant")
            if was not in allowed:
                refuse("WrongStatus", f"the tenant is {was}")
            await connection.execute(_TURN, tenant_id, status)
            await audit(connection, order.requested_by, action, {"was": was, "reason": order.reason})
            if event and was != status:
                await emit(connection, f"tenant-{order.tenant_id}", event, {"was": was, "reason": order.reason})
            return Turned(order.tenant_id, status, was)

        return await self._application.once(tenant_id, Turned, work, though_deleted=True)
