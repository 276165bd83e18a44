"""The tenant's workflows: TenantCreation, TenantSuspension, TenantReactivation and TenantDeletion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.shared.arguments import begun, read, refuse
    from outbox_workflows.shared.cancellable import CancellableSaga, Why, refuse_update, why_not
    from outbox_workflows.shared.saga import Saga, SagaStep
    from outbox_workflows.shared.saga_types import SagaProgress
    from outbox_workflows.tenant import validation as rules
    from outbox_workflows.tenant.types import (
        AdminToMake,
        Change,
        Created,
        DataToSetUp,
        Deleted,
        DeletionOrder,
        NewTenant,
        TenantMade,
        TenantOrder,
        Turned,
    )

VALIDATE = SagaStep("validate", "validate_tenant", 10)
CREATE = SagaStep("create-tenant", "create_tenant", 40, undo="undo_create_tenant")
ADMIN = SagaStep("create-admin-user", "create_admin_user", 65, undo="undo_create_admin_user")
DATA = SagaStep("set-up-data", "set_up_data", 90, undo="undo_set_up_data")
COMPLETE = SagaStep("complete", "complete_tenant", 100, final=True)

CLOSE = SagaStep("close", "close_tenant", 20, undo="reopen_tenant")
CONDEMN = SagaStep("condemn", "condemn_tenant", 30, final=True)
DELETE_ROWS = SagaStep("delete-rows", "delete_rows", 90, final=True, long=True)
FORGET = SagaStep("forget", "forget_tenant", 100, final=True)


@workflow.defn(name="TenantCreation")
class TenantCreation(CancellableSaga):
    """Creates a tenant as a whole or not at all: validate, create-tenant, create-admin-user, set-up-data, complete."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        self._request, self._faults = begun(NewTenant, given, rules.faults_of)
        self._saga = Saga(self._request.tenant_id, self._request.requested_by, self._request.patience)

    @workflow.run
    async def run(self, *given: object) -> Created:  # noqa: ARG002 - the constructor has taken it
        """Return what was created, or that it was cancelled by a command.

        Fails, with everything undone, with ApplicationError of type InvalidRequest, TenantExists, TenantDeleted,
        EmailTaken, DatabaseRefused or StepFailed (no time left for it); or NotUndone; its details name what is left.
        """
        refuse(self._faults)
        return await self._saga.run(self._steps(), if_cancelled=Created("cancelled", self._request.tenant_id))

    async def _steps(self) -> Created:
        saga, tenant_id = self._saga, self._request.tenant_id
        await saga.take(VALIDATE, self._request, type(None))
        made = await saga.take(CREATE, self._request, TenantMade)
        admin = AdminToMake(tenant_id, self._request.admin, self._request.requested_by)
        user_id = await saga.take(ADMIN, admin, str)
        plan, preferences = self._request.billing_plan, self._request.preferences
        data = DataToSetUp(tenant_id, user_id, plan, preferences, self._request.requested_by)
        await saga.take(DATA, data, type(None))
        await saga.take(COMPLETE, TenantOrder(tenant_id, self._request.requested_by), type(None))
        return Created("created", tenant_id, made.company_id, user_id)

    @workflow.update
    def change(self, *change: object) -> SagaProgress:
        """Go on with other parameters. Refused, with type TooLate, for what a step uses that has begun, as a whole."""
        return self._change(read(Change, change))

    @change.validator
    def _may_change(self, *change: object) -> None:
        refuse_update(why_not(Change, change, self._why_not_change))

    @workflow.signal(name="change")
    def change_by_signal(self, *change: object) -> None:
        """As the update `change`; the progress shows a refusal."""
        self._hear(Change, change, self._why_not_change, self._change)

    def _change(self, change: Change) -> SagaProgress:
        if self._saga.hear(change.command_id):
            self._request = rules.changed(self._request, change)
        return self._saga.progress()

    def _why_not_change(self, change: Change) -> Why:
        if not change.command_id:
            return "InvalidChange", "command_id is missing"
        if self._saga.has_heard(change.command_id):
            return ()
        if not self._saga.cancellable:
            return "TooLate", "the creation has come to its end"
        if late := rules.too_late_for(change, self._saga.begun):
            return "TooLate", f"the step that uses it has begun: {', '.join(late)}"
        if rules.is_empty(change):
            return "InvalidChange", "it changes nothing"
        faults = rules.faults_of(rules.changed(self._request, change))
        return ("InvalidChange", "; ".join(faults)) if faults else ()


@workflow.defn(name="TenantDeletion")
class TenantDeletion(CancellableSaga):
    """Deletes what a tenant has: close, the grace period, condemn, delete-rows, forget. The tenant's id stays taken.

    Cancelled, which it can be until the grace period is over, it leaves the tenant as it was.
    """

    @workflow.init
    def __init__(self, *given: object) -> None:
        self._order, self._faults = begun(DeletionOrder, given, rules.faults_of_order)
        self._saga = Saga(self._order.tenant_id, self._order.requested_by, self._order.patience)

    @workflow.run
    async def run(self, *given: object) -> Deleted:  # noqa: ARG002 - the constructor has taken it
        """Return how it ended.

        Fails, with everything undone, with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus; or
        NotUndone.
        """
        refuse(self._faults)
        cancelled = Deleted("cancelled", self._order.tenant_id)
        return await self._saga.run(self._steps(self._order), if_cancelled=cancelled)

    async def _steps(self, order: DeletionOrder) -> Deleted:
        saga = self._saga
        plain = TenantOrder(order.tenant_id, order.requested_by, order.reason)
        await saga.take(CLOSE, plain, Turned)
        if order.grace_s > 0:
            await asyncio.sleep(order.grace_s)
        await saga.take(CONDEMN, plain, Turned)
        saga.commit()
        rows = await saga.take(DELETE_ROWS, plain, dict[str, int])
        await saga.take(FORGET, plain, type(None))
        return Deleted("deleted", order.tenant_id, rows)


@workflow.defn(name="TenantSuspension")
class TenantSuspension:
    """Suspends an active tenant."""

    @workflow.run
    async def run(self, *given: object) -> Turned:
        """Return the tenant's status, and what it was.

        Fails with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus.
        """
        return await _turned("suspend", given)


@workflow.defn(name="TenantReactivation")
class TenantReactivation:
    """Makes a suspended tenant active again."""

    @workflow.run
    async def run(self, *given: object) -> Turned:
        """Return the tenant's status, and what it was.

        Fails with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus.
        """
        return await _turned("reactivate", given)


async def _turned(activity: str, given: Sequence[object]) -> Turned:
    order, faults = begun(TenantOrder, given, rules.faults_of_order)
    refuse(faults)
    saga = Saga(order.tenant_id, order.requested_by, order.patience)
    return await saga.run(saga.take(SagaStep(activity, f"{activity}_tenant", 100, final=True), order, Turned))


WORKFLOWS = (TenantCreation, TenantDeletion, TenantSuspension, TenantReactivation)
"""For the worker."""
