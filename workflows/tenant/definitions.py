"""The tenant's workflows: TenantCreation, TenantSuspension, TenantReactivation and TenantDeletion."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from workflows.tenant import rules
    from workflows.tenant.saga import Cancelled, Saga, Step
    from workflows.tenant.words import (
        AdminToMake,
        Cancel,
        Change,
        Created,
        DataToSetUp,
        Deleted,
        DeletionOrder,
        NewTenant,
        Progress,
        TenantMade,
        TenantOrder,
        Turned,
    )

VALIDATE = Step("validate", "validate_tenant", 10)
CREATE = Step("create-tenant", "create_tenant", 40, undo="undo_create_tenant")
ADMIN = Step("create-admin-user", "create_admin_user", 65, undo="undo_create_admin_user")
DATA = Step("set-up-data", "set_up_data", 90, undo="undo_set_up_data")
COMPLETE = Step("complete", "complete_tenant", 100, final=True)

CLOSE = Step("close", "close_tenant", 20, undo="reopen_tenant")
CONDEMN = Step("condemn", "condemn_tenant", 30, final=True)
DELETE_ROWS = Step("delete-rows", "delete_rows", 90, final=True, long=True)
FORGET = Step("forget", "forget_tenant", 100, final=True)


@workflow.defn(name="TenantCreation")
class TenantCreation:
    """Creates a tenant as a whole or not at all: validate, create-tenant, create-admin-user, set-up-data, complete."""

    @workflow.init
    def __init__(self, request: NewTenant) -> None:
        self._request = request
        self._saga = Saga(request.tenant_id, request.requested_by, request.patience)

    @workflow.run
    async def run(self, request: NewTenant) -> Created:
        """Return what was created, or that it was cancelled by a command.

        Fails, with everything undone, with ApplicationError of type InvalidRequest, TenantExists, EmailTaken,
        DatabaseRefused or StepFailed (no time left for it); or NotUndone, whose details name what is left.
        """
        try:
            return await self._saga.run(self._steps())
        except Cancelled:
            return Created("cancelled", request.tenant_id)

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

    @workflow.query
    def progress(self) -> Progress:
        """How far it is."""
        return self._saga.progress()

    @workflow.update
    def cancel(self, command: Cancel) -> Progress:
        """Undo everything and end. Refused, with type TooLate, once the last step has begun."""
        return _cancel(self._saga, command)

    @cancel.validator
    def _may_cancel(self, command: Cancel) -> None:
        _refuse(*_why_not_cancel(self._saga, command))

    @workflow.signal(name="cancel")
    def cancel_by_signal(self, command: Cancel) -> None:
        """As the update `cancel`; a refusal stands in the progress."""
        _cancel_or_note(self._saga, command)

    @workflow.update
    def change(self, change: Change) -> Progress:
        """Go on with other parameters. Refused, with type TooLate, for what a step uses that has begun, as a whole."""
        return self._change(change)

    @change.validator
    def _may_change(self, change: Change) -> None:
        _refuse(*self._why_not_change(change))

    @workflow.signal(name="change")
    def change_by_signal(self, change: Change) -> None:
        """As the update `change`; a refusal stands in the progress."""
        if why := self._why_not_change(change):
            self._saga.note_refusal(change.command_id, why[1])
        else:
            self._change(change)

    def _change(self, change: Change) -> Progress:
        if self._saga.hear(change.command_id):
            self._request = rules.changed(self._request, change)
        return self._saga.progress()

    def _why_not_change(self, change: Change) -> tuple[str, ...]:
        """The error's type and message, or nothing."""
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
        before = rules.faults_of(self._request)
        faults = [fault for fault in rules.faults_of(rules.changed(self._request, change)) if fault not in before]
        return ("InvalidChange", "; ".join(faults)) if faults else ()


@workflow.defn(name="TenantDeletion")
class TenantDeletion:
    """Deletes what a tenant has: close, the grace period, condemn, delete-rows, forget. The tenant's id stays taken."""

    @workflow.init
    def __init__(self, order: DeletionOrder) -> None:
        self._saga = Saga(order.tenant_id, order.requested_by, order.patience)

    @workflow.run
    async def run(self, order: DeletionOrder) -> Deleted:
        """Return how it ended. It can be cancelled until the grace period is over; the tenant is then as it was.

        Fails, with everything undone, with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus; or
        NotUndone.
        """
        try:
            return await self._saga.run(self._steps(order))
        except Cancelled:
            return Deleted("cancelled", order.tenant_id)

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

    @workflow.query
    def progress(self) -> Progress:
        """How far it is."""
        return self._saga.progress()

    @workflow.update
    def cancel(self, command: Cancel) -> Progress:
        """Leave the tenant as it was. Refused, with type TooLate, once the grace period is over."""
        return _cancel(self._saga, command)

    @cancel.validator
    def _may_cancel(self, command: Cancel) -> None:
        _refuse(*_why_not_cancel(self._saga, command))

    @workflow.signal(name="cancel")
    def cancel_by_signal(self, command: Cancel) -> None:
        """As the update `cancel`; a refusal stands in the progress."""
        _cancel_or_note(self._saga, command)


@workflow.defn(name="TenantSuspension")
class TenantSuspension:
    """Suspends an active tenant."""

    @workflow.run
    async def run(self, order: TenantOrder) -> Turned:
        """Return the tenant's status, and what it was.

        Fails with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus.
        """
        return await _turned("suspend", order)


@workflow.defn(name="TenantReactivation")
class TenantReactivation:
    """Makes a suspended tenant active again."""

    @workflow.run
    async def run(self, order: TenantOrder) -> Turned:
        """Return the tenant's status, and what it was.

        Fails with ApplicationError of type InvalidRequest, UnknownTenant or WrongStatus.
        """
        return await _turned("reactivate", order)


async def _turned(activity: str, order: TenantOrder) -> Turned:
    saga = Saga(order.tenant_id, order.requested_by, order.patience)
    return await saga.run(saga.take(Step(activity, f"{activity}_tenant", 100, final=True), order, Turned))


def _why_not_cancel(saga: Saga, command: Cancel) -> tuple[str, ...]:
    """The error's type and message, or nothing."""
    if not command.command_id:
        return "InvalidCancel", "command_id is missing"
    if saga.cancellable or saga.has_heard(command.command_id):
        return ()
    return "TooLate", "there is nothing to cancel any more: see the progress"


def _cancel(saga: Saga, command: Cancel) -> Progress:
    if saga.hear(command.command_id):
        saga.cancel(command)
    return saga.progress()


def _cancel_or_note(saga: Saga, command: Cancel) -> None:
    if why := _why_not_cancel(saga, command):
        saga.note_refusal(command.command_id, why[1])
    else:
        _cancel(saga, command)


def _refuse(type_: str = "", message: str = "") -> None:
    """Raise what an update is refused with, if anything."""
    if type_:
        raise ApplicationError(message, type=type_, non_retryable=True)


WORKFLOWS = (TenantCreation, TenantDeletion, TenantSuspension, TenantReactivation)
"""For the worker."""
