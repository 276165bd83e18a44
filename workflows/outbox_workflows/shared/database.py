"""Transactions of one tenant, and activities that have their effect once however often Temporal runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from pydantic import TypeAdapter
from temporalio import activity
from temporalio.exceptions import ApplicationError

from outbox.model.errors import DatabaseRefused
from outbox.postgres.address import Where
from outbox.postgres.errors import translated_errors
from outbox.postgres.pool import open_pool
from outbox.store.migrations import require_current
from outbox_workflows.shared.heartbeat import heartbeating
from outbox_workflows.shared.migrations import APPLICATION

if TYPE_CHECKING:
    from outbox.postgres.connect import Connection
    from outbox.postgres.pool import Pool

TENANT_DELETED = "TenantDeleted"
"""Type of the failure of what comes too late for its tenant."""
_STATEMENT_TIMEOUT_S = 10.0
_ENTER = "select app.enter($1)"
TAKE = """
insert into app.step (tenant_id, workflow_id, step, activity) values ($1, $2, $3, $4)
on conflict (workflow_id, step) do nothing
returning true
"""
"""Takes a step in the journal, unless it is taken."""
_TAKEN = "select activity, result from app.step where workflow_id = $1 and step = $2"
_HOLD = "select app.hold_tenant($1)"
_FINISH = "update app.step set result = $3::json where workflow_id = $1 and step = $2"
T = TypeVar("T")


class _NotOursError(Exception):
    """Carries an error past the translation of the database's."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


class Application:
    """The application's database, through one pool that all activities of a process share."""

    def __init__(self, pool: Pool, schema: str) -> None:
        """`schema` is the outbox's."""
        self.pool = pool
        self._schema = schema

    async def check(self) -> str | None:
        """Raise SchemaError unless the schema serves this version, DatabaseUnavailable where the database is away.

        Returns a remark where the schema is newer than this version.
        """
        with translated_errors("connect"):
            async with self.pool.acquire() as connection:
                return await require_current(connection, self._schema, APPLICATION)

    @asynccontextmanager
    async def as_tenant(
        self, tenant_id: UUID, doing: str = "work on the application's data"
    ) -> AsyncIterator[Connection]:
        """A transaction that sees and changes the rows of this tenant only: row-level security holds it to that.

        Raises DatabaseUnavailable, which is worth another try, or DatabaseRefused, which is not.
        """
        try:
            with translated_errors(doing):
                async with self.pool.acquire() as connection, connection.transaction():
                    await connection.execute(_ENTER, tenant_id)
                    try:
                        yield connection
                    except OSError as error:  # of the work's own, as long as the connection lives
                        raise (error if connection.is_closed() else _NotOursError(error)) from error
        except _NotOursError as foreign:
            raise foreign.error from None

    async def once(
        self,
        tenant_id: UUID,
        kind: type[T],
        work: Callable[[Connection], Awaitable[T]],
        *,
        though_deleted: bool = False,
    ) -> T:
        """Do the current activity's work in one tenant's transaction, unless it is done; return what it returned then.

        The effect and the note of it commit together. The note's key is the workflow id and the activity id, so a
        workflow names its activities: `execute_activity(…, activity_id="create-tenant")`, a name of their own each, for
        as long as the workflow id lives. `kind` is the type that `work` returns.

        Fails for good, with ApplicationError, for a tenant that is deleted, type TenantDeleted, unless
        `though_deleted`; and for what the database refuses, type DatabaseRefused. A deletion waits for steps that have
        begun, and they come before it. A tenant without a row of its own in `app.tenant` is like any other.
        """
        info = activity.info()
        workflow_id = info.workflow_id or ""
        outcome = TypeAdapter(kind)
        try:
            async with heartbeating(), self.as_tenant(tenant_id, info.activity_type) as connection:
                taken = await connection.fetchval(TAKE, tenant_id, workflow_id, info.activity_id, info.activity_type)
                if taken is None:
                    row = await connection.fetchrow(_TAKEN, workflow_id, info.activity_id)
                    return outcome.validate_json(_result_of(row, info.activity_type))
                if not though_deleted and await connection.fetchval(_HOLD, tenant_id) == "deleted":
                    raise ApplicationError(
                        f"tenant {tenant_id} is deleted: nothing is done for it any more",
                        type=TENANT_DELETED,
                        non_retryable=True,
                    )
                result = await work(connection)
                await connection.execute(_FINISH, workflow_id, info.activity_id, outcome.dump_json(result).decode())
                return result
        except DatabaseRefused as error:
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from error


def _result_of(row: object, activity_type: str) -> str:
    """What a step left behind. Raises ApplicationError where it was another activity's, or another tenant's."""
    left = dict(row) if row is not None else {}  # type: ignore[call-overload]
    if left.get("activity") != activity_type:
        raise ApplicationError(
            f"the activity id is taken by {left.get('activity', 'another tenant')}: give each step an id of its own",
            type="StepTaken",
            non_retryable=True,
        )
    return str(left["result"])


@asynccontextmanager
async def open_application(dsn: Where, schema: str, *, size: int) -> AsyncIterator[Application]:
    """Open the application's database with up to `size` connections.

    Raises SchemaError where `outbox workflows migrate` is due; `schema` is the outbox's.
    """
    async with open_pool(
        dsn, size=size, application_name="outbox workflows", statement_timeout_s=_STATEMENT_TIMEOUT_S
    ) as pool:
        application = Application(pool, schema)
        await application.check()
        yield application
