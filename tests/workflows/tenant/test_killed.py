"""A worker that dies in a step leaves it to another, which finishes; each step has its effect once."""

from __future__ import annotations

import signal

import pytest
from anyio import to_thread
from temporalio.client import WorkflowFailureError

from tests.support.stage import Stage
from tests.support.step_worker import dying_worker
from tests.support.steps import Moment
from tests.workflows.tenant.scenarios import TABLES, HeldStep, create, created, neighbour, rows, turn
from tests.workflows.tenant.test_creation import ACTIONS, STEPS, trail

pytestmark = pytest.mark.timeout(120)
DIES_WITHIN_S = 60.0
DELETION = {
    "close": "deletion begun",
    "condemn": "tenant condemned",
    "delete-rows": "rows deleted",
    "forget": "tenant deleted",
}


@pytest.mark.slow("kills a process in each step")
async def test_a_creation_outlives_a_process_killed_in_each_step(stage: Stage) -> None:
    handle = await create(stage)
    for step in STEPS:
        with dying_worker(stage, "tenant", step) as process:
            assert await to_thread.run_sync(process.wait, DIES_WITHIN_S) == -signal.SIGKILL
        assert await stage.audited(handle.id) == list(ACTIONS.values())[: STEPS.index(step) + 1]
    async with stage.worker():
        assert (await handle.result())["status"] == "created"
    assert await stage.audited(handle.id) == list(ACTIONS.values())
    assert set(await rows(stage)) == set(TABLES)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_creation_cut_in_a_step_is_finished_by_another_worker(stage: Stage, step: str, moment: Moment) -> None:
    gate = HeldStep(step, moment)
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
    async with stage.worker():
        assert (await handle.result())["status"] == "created"
    assert await stage.audited(handle.id) == list(ACTIONS.values())


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["undo-set-up-data", "undo-create-admin-user", "undo-create-tenant"])
async def test_an_undoing_cut_in_a_step_is_finished_by_another_worker(stage: Stage, step: str, moment: Moment) -> None:
    other = await neighbour(stage)
    before = await rows(stage, other)
    await stage.refuse(ACTIONS["complete"])
    gate = HeldStep(step, moment)
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
    async with stage.worker():
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert await rows(stage) == {}
    assert await rows(stage, other) == before
    assert await stage.audited(handle.id) == trail(done=STEPS[:-1])


@pytest.mark.parametrize("step", DELETION)
async def test_a_deletion_cut_in_a_step_is_finished_by_another_worker(stage: Stage, step: str) -> None:
    await created(stage)
    gate = HeldStep(step, "after")
    async with stage.worker(gate):
        handle = await turn(stage, "TenantDeletion")
        await gate.wait_reached()
    async with stage.worker():
        result = await handle.result()
    assert result["rows"]["app.app_user"] == 1
    assert set(await rows(stage)) == {"tenant"}
    assert list(dict.fromkeys(await stage.audited(handle.id))) == list(DELETION.values())


async def test_a_suspension_cut_after_its_effect_is_reported_once(stage: Stage) -> None:
    await created(stage)
    gate = HeldStep("suspend", "after")
    async with stage.worker(gate):
        handle = await turn(stage, "TenantSuspension")
        await gate.wait_reached()
    async with stage.worker():
        assert (await handle.result())["was"] == "active"
    assert [each["type"] for each in await stage.heard("tenant.suspended")] == ["tenant.created", "tenant.suspended"]
