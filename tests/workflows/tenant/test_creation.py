"""A tenant is created as a whole or not at all, after any failure or cancellation, and others notice nothing."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import CancelledError

from outbox_workflows.shared.saga_types import Cancel, SagaProgress
from outbox_workflows.tenant.types import Admin, Created
from tests.support.eventually import eventually
from tests.support.running import fetch
from tests.support.sql import connected
from tests.support.stage import Stage
from tests.support.steps import Moment
from tests.workflows.tenant.scenarios import (
    IMPATIENT,
    TABLES,
    HeldStep,
    create,
    created,
    failure,
    neighbour,
    new_tenant,
    rows,
)

pytestmark = pytest.mark.timeout(90)
ACTIONS = {
    "validate": "tenant requested",
    "create-tenant": "tenant created",
    "create-admin-user": "admin user created",
    "set-up-data": "initial data set up",
    "complete": "tenant activated",
}
UNDOINGS = {
    "create-tenant": "tenant removed",
    "create-admin-user": "admin user removed",
    "set-up-data": "initial data removed",
}
STEPS = list(ACTIONS)
WAITS_FOR_US = "select from pg_stat_activity where $1 = any (pg_blocking_pids(pid))"
CANCEL = Cancel("cancel-1", "ops", "changed their mind")


def trail(*, done: list[str]) -> list[str]:
    """The audit trail of a creation that did these steps, and then undid them."""
    return [ACTIONS[step] for step in done] + [UNDOINGS[step] for step in reversed(done) if step in UNDOINGS]


async def progress(handle: WorkflowHandle[Any, Any]) -> SagaProgress:
    return await handle.query("progress", result_type=SagaProgress)


async def test_a_committed_request_becomes_a_tenant_with_all_that_it_starts_with(stage: Stage) -> None:
    async with stage.worker():
        handle = await create(stage, preferences={"language": "de", "theme": "dark"})
        result = Created(**await handle.result())
        end = await progress(handle)
    made = await rows(stage)
    assert set(made) == set(TABLES)
    [tenant], [company], [user], [link] = (made[table] for table in ("tenant", "company", "app_user", "user_role"))
    assert (tenant["name"], tenant["status"]) == ("Acme", "active")
    assert (company["name"], company["is_default"]) == ("Acme Corp", True)
    assert (user["email"], user["first_name"], user["last_name"]) == ("ada@acme.example", "Ada", "Admin")
    assert result == Created("created", str(stage.tenant_id), str(company["company_id"]), str(user["user_id"]))
    [admin] = [role for role in made["role"] if role["name"] == "Admin"]
    assert (link["user_id"], link["role_id"]) == (user["user_id"], admin["role_id"])
    assert [(plan["name"], plan["is_default"]) for plan in made["billing_plan"]] == [("Enterprise", True)]
    preferences = {line["name"]: line["value"] for line in made["preference"]}
    assert preferences == {"language": "de", "theme": "dark", "time_zone": "UTC"}
    closed = {(line["kind"], line["name"]) for line in made["status"] if line["is_closed"]}
    assert closed == {("ticket", "Closed"), ("project", "Closed")}
    assert await stage.audited(handle.id) == list(ACTIONS.values())
    [event] = await stage.heard("tenant.created")
    assert (event["stream"], event["name"]) == (f"tenant-{stage.tenant_id}", "Acme")
    assert end == SagaProgress("done", "complete", 100, STEPS, [], [], "", [])


async def test_without_a_company_name_there_is_no_company(stage: Stage) -> None:
    async with stage.worker():
        result = await (await create(stage, company_name="")).result()
    assert result["company_id"] is None
    assert "company" not in await rows(stage)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"tenant_id": "42"}, "tenant_id is no UUID"),
        ({"name": " "}, "name is missing"),
        (
            {"admin": Admin("no-address", password_hash="x")},
            "admin.email is no e-mail address; admin.password_hash is not",
        ),
        ({"billing_plan": ""}, "billing_plan is missing"),
        ({"name": "A\0B"}, "a NUL character"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_a_request_that_cannot_be_is_refused_with_its_faults(
    stage: Stage, chosen: dict[str, Any], says: str
) -> None:
    if "name" in chosen and "\0" in chosen["name"]:  # the outbox would not take it; Temporal does
        argument = new_tenant(stage, **chosen)
        handle: WorkflowHandle[Any, Any] = await stage.client.start_workflow(
            "TenantCreation", argument, id=f"creation-{uuid4()}", task_queue=stage.task_queue
        )
    else:
        handle = await create(stage, **chosen)
    async with stage.worker():
        error = await failure(handle)
    assert error.type == "InvalidRequest"
    assert says in error.message
    assert await rows(stage) == {}


async def test_an_empty_request_is_refused_with_its_faults(stage: Stage) -> None:
    async with stage.worker():
        error = await failure(await stage.start("TenantCreation", f"creation-{uuid4()}", {}))
    assert error.message.startswith("tenant_id is no UUID; name is missing; admin.email")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": 7}, "name must be a text, not a number"),
        ({"admin": {"password_hash": ["correct horse"]}}, "admin.password_hash must be a text, not a list"),
        ({"patience": {"step_s": 1e300}}, "patience.step_s is no number of seconds from 0 to"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_a_request_that_cannot_be_read_is_refused_with_its_faults(
    stage: Stage, wrong: dict[str, Any], says: str
) -> None:
    asked = orjson.loads(orjson.dumps(new_tenant(stage))) | wrong
    async with stage.worker():
        error = await failure(await stage.start("TenantCreation", f"creation-{uuid4()}", asked))
    assert error.type == "InvalidRequest"
    assert error.message.startswith(says)
    assert "correct horse" not in error.message


async def test_a_tenant_that_is_there_is_refused_and_stays_as_it_is(stage: Stage) -> None:
    await created(stage)
    before = await rows(stage)
    async with stage.worker():
        error = await failure(await create(stage, name="Impostor"))
    assert error.type == "TenantExists"
    assert await rows(stage) == before


async def test_if_two_create_the_same_tenant_one_does_and_the_other_undoes_nothing(stage: Stage) -> None:
    gate = HeldStep("validate", "after")
    async with stage.worker(gate):
        handles = [await create(stage), await create(stage)]
        await eventually(lambda: stage.fetch("select from app.audit"), lambda requested: len(requested) == 2)
        gate.open()
        ends = [await _type_of_end(handle) for handle in handles]
    assert sorted(ends) == ["TenantExists", "created"]
    assert set(await rows(stage)) == set(TABLES)


async def _type_of_end(handle: WorkflowHandle[Any, Any]) -> str:
    try:
        return str((await handle.result())["status"])
    except WorkflowFailureError:
        return str((await failure(handle)).type)


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_that_fails_leaves_nothing_of_the_tenant_and_all_of_its_neighbour(stage: Stage, step: str) -> None:
    other = await neighbour(stage)
    before = await rows(stage, other)
    await stage.refuse(ACTIONS[step])
    async with stage.worker():
        handle = await create(stage)
        error = await failure(handle)
        end = await progress(handle)
    assert (error.type, error.message.split(":")[0]) == ("DatabaseRefused", f"{step} failed")
    assert await rows(stage) == {}
    assert await rows(stage, other) == before
    done = STEPS[: STEPS.index(step)]
    assert await stage.audited(handle.id) == trail(done=done)
    undone = [name for name in reversed([*done, step]) if name in UNDOINGS]
    assert error.message == f"{step} failed: {end.error}"
    assert end == SagaProgress("undone", step, 0, done, undone, [], "", [], end.error)
    assert stage.ear.events == []


async def test_after_a_failure_the_same_tenant_can_be_created_by_another_workflow(stage: Stage) -> None:
    await stage.refuse(ACTIONS["set-up-data"])
    async with stage.worker():
        await failure(await create(stage))
        await stage.accept(ACTIONS["set-up-data"])
        assert (await (await create(stage)).result())["status"] == "created"


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS[:-1])
async def test_cancelled_by_temporal_in_any_step_nothing_is_left(stage: Stage, step: str, moment: Moment) -> None:
    other = await neighbour(stage)
    before = await rows(stage, other)
    gate = HeldStep(step, moment)
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        await stage.cancel(handle.id)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    assert isinstance(caught.value.cause, CancelledError)
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED
    assert await rows(stage) == {}
    assert await rows(stage, other) == before
    assert await stage.audited(handle.id) == trail(done=STEPS[: STEPS.index(step) + (moment == "after")])


@pytest.mark.parametrize("way", ["update", "signal"])
@pytest.mark.parametrize("step", STEPS[:-1])
async def test_cancelled_by_a_command_in_any_step_nothing_is_left(stage: Stage, step: str, way: str) -> None:
    moment: Moment = "after" if way == "update" else "before"
    gate = HeldStep(step, moment)
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        if way == "update":
            answer = await handle.execute_update("cancel", CANCEL, result_type=SagaProgress)
            assert (answer.step, answer.cancelled_by) == (step, "ops")
        else:
            await stage.signal(handle.id, "cancel", CANCEL)
        assert Created(**await handle.result()) == Created("cancelled", str(stage.tenant_id))
        end = await progress(handle)
    assert (end.status, end.cancelled_by) == ("undone", "ops")
    assert await rows(stage) == {}
    assert await stage.audited(handle.id) == trail(done=STEPS[: STEPS.index(step) + (moment == "after")])


async def test_a_step_that_waits_in_the_database_is_cut_by_a_cancel_and_rolled_back(stage: Stage) -> None:
    async with connected(stage.dsn) as rival, rival.transaction(), stage.worker():
        await rival.execute("lock table app.company in access exclusive mode")
        handle = await create(stage)
        await eventually(lambda: fetch(stage.dsn, WAITS_FOR_US, rival.get_server_pid()), bool)
        await stage.cancel(handle.id)
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert await fetch(stage.dsn, "select from app.tenant") == []


async def test_a_cancel_that_comes_before_the_first_step_prevents_it(stage: Stage) -> None:
    handle = await create(stage)
    await stage.signal(handle.id, "cancel", CANCEL)
    async with stage.worker():
        assert (await handle.result())["status"] == "cancelled"
    assert await stage.audited(handle.id) == []


async def test_no_cancel_is_accepted_once_the_last_step_has_begun(stage: Stage) -> None:
    gate = HeldStep("complete", "before")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("cancel", CANCEL)
        assert caught.value.cause.type == "TooLate"
        await stage.signal(handle.id, "cancel", CANCEL)
        await stage.cancel(handle.id)
        assert (await progress(handle)).refused == ["cancel-1: there is nothing to cancel any more: see the progress"]
        [last] = (await handle.describe()).raw_description.pending_activities
        assert last.state != PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
        gate.open()
        assert (await handle.result())["status"] == "created"
    assert (await rows(stage))["tenant"][0]["status"] == "active"


async def test_cancelling_while_a_failure_is_undone_changes_nothing(stage: Stage) -> None:
    await stage.refuse(ACTIONS["set-up-data"])
    gate = HeldStep("undo-create-admin-user", "before")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        await stage.cancel(handle.id)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await handle.execute_update("cancel", CANCEL)
        assert caught.value.cause.type == "TooLate"
        gate.open()
        assert (await failure(handle)).type == "DatabaseRefused"
    assert await rows(stage) == {}


async def test_undoing_that_fails_is_tried_again_until_it_works(stage: Stage) -> None:
    await stage.refuse(ACTIONS["set-up-data"])
    await stage.refuse(UNDOINGS["create-admin-user"])
    async with stage.worker():
        handle = await create(stage)

        async def attempts() -> int:
            pending = (await handle.describe()).raw_description.pending_activities
            return max((each.attempt for each in pending if each.activity_id == "undo-create-admin-user"), default=0)

        await eventually(attempts, lambda count: count > 1)
        await stage.accept(UNDOINGS["create-admin-user"])
        assert (await failure(handle)).type == "DatabaseRefused"
    assert await rows(stage) == {}


async def test_undoing_that_never_works_fails_the_workflow_which_names_what_is_left(stage: Stage) -> None:
    await stage.refuse(ACTIONS["set-up-data"])
    await stage.refuse(UNDOINGS["create-admin-user"])
    async with stage.worker():
        handle = await create(stage, patience=IMPATIENT)
        error = await failure(handle)
        end = await progress(handle)
    assert error.type == "NotUndone"
    assert error.details == ("create-admin-user", "create-tenant")
    assert "left to be done by hand: create-admin-user, create-tenant" in error.message
    assert set(await rows(stage)) == {"tenant", "company", "app_user"}
    assert (end.status, end.undone, end.left) == ("failed", ["set-up-data"], ["create-admin-user", "create-tenant"])
