"""What creates a tenant in the database, step by step, and what takes each step back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from temporalio import activity

from outbox_workflows.shared.event_log import audit, emit
from outbox_workflows.shared.refusal import refuse
from outbox_workflows.shared.saga_types import Undo
from outbox_workflows.shared.undo import undo
from outbox_workflows.tenant import validation as rules
from outbox_workflows.tenant.status_activities import StandingActivities
from outbox_workflows.tenant.types import ADMIN_ROLE, AdminToMake, DataToSetUp, NewTenant, TenantMade, TenantOrder

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox_workflows.shared.database import Application

_ROLES = (ADMIN_ROLE, "Manager", "Member")
_STATUSES = {
    "ticket": ("Open", "In progress", "Waiting", "Closed"),
    "project": ("Planned", "Active", "On hold", "Closed"),
}
_PREFERENCES = {"language": "en", "time_zone": "UTC"}

_EXISTS = "select exists (select from app.tenant where tenant_id = $1)"
_TENANT = "insert into app.tenant (tenant_id, name) values ($1, $2) on conflict do nothing returning true"
_COMPANY = "insert into app.company (tenant_id, name, is_default) values ($1, $2, true) returning company_id::text"
_USER = """
insert into app.app_user (tenant_id, email, first_name, last_name, password_hash) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, lower(email)) do nothing
returning user_id::text
"""
_ROLE = "insert into app.role (tenant_id, name) select $1, name from unnest($2::text[]) as r (name)"
_USER_ROLE = """
insert into app.user_role (tenant_id, user_id, role_id)
select tenant_id, $2, role_id from app.role where tenant_id = $1 and name = $3
"""
_STATUS = """
insert into app.status (tenant_id, kind, name, place, is_closed)
select $1, $2, name, place, place = cardinality($3::text[]) from unnest($3::text[]) with ordinality as s (name, place)
"""
_PLAN = "insert into app.billing_plan (tenant_id, name, is_default) values ($1, $2, true)"
_PREFERENCE = """
insert into app.preference (tenant_id, name, value)
select $1, p.name, p.value from unnest($2::text[], $3::text[]) as p (name, value)
"""
_ACTIVATE = """
update app.tenant set status = 'active', changed_at = now() where tenant_id = $1 and status = 'creating' returning name
"""
_REMOVE_DATA = tuple(
    f"delete from app.{table} where tenant_id = $1"  # noqa: S608 - the names stand here
    for table in ("user_role", "role", "status", "billing_plan", "preference")
)
_REMOVE_USER = "delete from app.app_user where tenant_id = $1 and user_id = $2"
_REMOVE_COMPANY = "delete from app.company where tenant_id = $1 and company_id = $2"
_REMOVE_TENANT = "delete from app.tenant where tenant_id = $1"


class TenantActivities:
    """The activities of all of the tenant's workflows."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._standing = StandingActivities(application)

    def all(self) -> list[Callable[..., Any]]:
        """What the worker registers."""
        return [
            self.validate_tenant,
            self.create_tenant,
            self.undo_create_tenant,
            self.create_admin_user,
            self.undo_create_admin_user,
            self.set_up_data,
            self.undo_set_up_data,
            self.complete_tenant,
            *self._standing.all(),
        ]

    @activity.defn
    async def validate_tenant(self, request: NewTenant) -> None:
        """Refuse what could not be created. Fails for good with type InvalidRequest or TenantExists."""
        if faults := rules.faults_of(request):
            refuse("InvalidRequest", "; ".join(faults))

        async def work(connection: Connection) -> None:
            if await connection.fetchval(_EXISTS, UUID(request.tenant_id)):
                refuse("TenantExists", "there is a tenant of this id")
            await audit(connection, request.requested_by, "tenant requested", {"name": request.name})

        await self._application.once(UUID(request.tenant_id), type(None), work)

    @activity.defn
    async def create_tenant(self, request: NewTenant) -> TenantMade:
        """Make the tenant, not active yet, and its default company. Fails for good with type TenantExists."""
        tenant_id = UUID(request.tenant_id)

        async def work(connection: Connection) -> TenantMade:
            if not await connection.fetchval(_TENANT, tenant_id, request.name):
                refuse("TenantExists", "there is a tenant of this id")
            named = request.company_name
            company_id = await connection.fetchval(_COMPANY, tenant_id, named) if named else None
            await audit(connection, request.requested_by, "tenant created", {"name": request.name, "company": named})
            return TenantMade(company_id)

        return await self._application.once(UUID(request.tenant_id), TenantMade, work)

    @activity.defn
    async def create_admin_user(self, order: AdminToMake) -> str:
        """Make the first user and return its id. Fails for good with type EmailTaken."""
        admin = order.admin

        async def work(connection: Connection) -> str:
            names = admin.first_name, admin.last_name
            user_id = await connection.fetchval(_USER, UUID(order.tenant_id), admin.email, *names, admin.password_hash)
            if user_id is None:
                refuse("EmailTaken", "a user of this tenant has this e-mail address")
            await audit(connection, order.actor, "admin user created", {"user_id": user_id})
            return str(user_id)

        return await self._application.once(UUID(order.tenant_id), str, work)

    @activity.defn
    async def set_up_data(self, order: DataToSetUp) -> None:
        """Make roles, the admin's among them, statuses, the billing plan and preferences."""
        tenant_id = UUID(order.tenant_id)
        preferences = _PREFERENCES | order.preferences

        async def work(connection: Connection) -> None:
            await connection.execute(_ROLE, tenant_id, _ROLES)
            await connection.execute(_USER_ROLE, tenant_id, UUID(order.admin_user_id), ADMIN_ROLE)
            for kind, names in _STATUSES.items():
                await connection.execute(_STATUS, tenant_id, kind, names)
            await connection.execute(_PLAN, tenant_id, order.billing_plan)
            await connection.execute(_PREFERENCE, tenant_id, list(preferences), list(preferences.values()))
            await audit(connection, order.actor, "initial data set up", {"billing_plan": order.billing_plan})

        await self._application.once(UUID(order.tenant_id), type(None), work)

    @activity.defn
    async def complete_tenant(self, order: TenantOrder) -> None:
        """Make the tenant active and say so: event tenant.created. Fails for good with type WrongStatus."""

        async def work(connection: Connection) -> None:
            name = await connection.fetchval(_ACTIVATE, UUID(order.tenant_id))
            if name is None:
                refuse("WrongStatus", "the tenant is not one that is being created")
            await audit(connection, order.requested_by, "tenant activated", {})
            await emit(connection, f"tenant-{order.tenant_id}", "tenant.created", {"name": name})

        await self._application.once(UUID(order.tenant_id), type(None), work)

    @activity.defn
    async def undo_set_up_data(self, order: Undo) -> bool:
        """Remove the initial data; say whether there was any."""

        async def work(connection: Connection, _left: None) -> None:
            for statement in _REMOVE_DATA:
                await connection.execute(statement, UUID(order.tenant_id))
            await audit(connection, order.actor, "initial data removed", {"reason": order.reason})

        return await undo(self._application, order, work)

    @activity.defn
    async def undo_create_admin_user(self, order: Undo) -> bool:
        """Remove the first user; say whether there was one."""

        async def work(connection: Connection, user_id: str) -> None:
            await connection.execute(_REMOVE_USER, UUID(order.tenant_id), UUID(user_id))
            await audit(connection, order.actor, "admin user removed", {"reason": order.reason})

        return await undo(self._application, order, work)

    @activity.defn
    async def undo_create_tenant(self, order: Undo) -> bool:
        """Remove the company and the tenant, if this workflow made them; say whether it did."""
        tenant_id = UUID(order.tenant_id)

        async def work(connection: Connection, made: dict[str, str | None]) -> None:
            if company_id := made["company_id"]:
                await connection.execute(_REMOVE_COMPANY, tenant_id, UUID(company_id))
            await connection.execute(_REMOVE_TENANT, tenant_id)
            await audit(connection, order.actor, "tenant removed", {"reason": order.reason})

        return await undo(self._application, order, work)
