"""What is to be created can be changed until the step that uses it begins; a later change is refused."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from outbox_workflows.shared.saga_types import SagaProgress
from outbox_workflows.tenant.types import Change
from tests.support.eventually import eventually
from tests.support.stage import Stage
from tests.workflows.tenant.scenarios import HeldStep, create, rows

pytestmark = pytest.mark.timeout(90)


async def refusal(handle: WorkflowHandle[Any, Any], change: object, verb: str = "change") -> tuple[str, str]:
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await handle.execute_update(verb, change)
    return caught.value.cause.type, caught.value.cause.message


async def test_everything_can_be_changed_before_its_step_begins(stage: Stage) -> None:
    gate = HeldStep("validate", "before")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        await handle.execute_update("change", Change("1", name="Bolt", company_name="Bolt AG", billing_plan="Basic"))
        await stage.signal(
            handle.id, "change", Change("2", admin_email="bo@bolt.example", preferences={"theme": "light"})
        )
        gate.open()
        await handle.result()
    made = await rows(stage)
    assert made["tenant"][0]["name"] == "Bolt"
    assert made["company"][0]["name"] == "Bolt AG"
    assert made["app_user"][0]["email"] == "bo@bolt.example"
    assert made["app_user"][0]["first_name"] == "Ada"
    assert made["billing_plan"][0]["name"] == "Basic"
    assert {"theme": "light"}.items() <= {line["name"]: line["value"] for line in made["preference"]}.items()


async def test_what_a_step_uses_that_has_begun_is_refused_and_the_rest_is_not(stage: Stage) -> None:
    gate = HeldStep("create-tenant", "before")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        late = await refusal(handle, Change("1", company_name="Late", billing_plan="Basic"))
        await handle.execute_update("change", Change("2", billing_plan="Basic"))
        await stage.signal(handle.id, "change", Change("3", name="Late"))
        gate.open()
        await handle.result()
        end = await handle.query("progress", result_type=SagaProgress)
    assert late == ("TooLate", "the step that uses it has begun: company_name")
    assert end.refused == ["3: the step that uses it has begun: name"]
    made = await rows(stage)
    assert (made["tenant"][0]["name"], made["company"][0]["name"]) == ("Acme", "Acme Corp")
    assert [plan["name"] for plan in made["billing_plan"]] == ["Basic"]


async def test_a_repeated_command_counts_once_and_is_answered_again_also_late(stage: Stage) -> None:
    first, last = HeldStep("create-tenant", "before"), HeldStep("complete", "before")
    async with stage.worker(first, last):
        handle = await create(stage)
        await first.wait_reached()
        await handle.execute_update("change", Change("1", billing_plan="Basic"))
        await handle.execute_update("change", Change("2", billing_plan="Premium"))
        await handle.execute_update("change", Change("1", billing_plan="Basic"))
        first.open()
        await last.wait_reached()
        again = await handle.execute_update("change", Change("2", billing_plan="Premium"), result_type=SagaProgress)
        last.open()
        await handle.result()
    assert again.step == "complete"
    assert [plan["name"] for plan in (await rows(stage))["billing_plan"]] == ["Premium"]


async def test_a_change_that_cannot_be_is_refused(stage: Stage) -> None:
    gate = HeldStep("validate", "before")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        assert await refusal(handle, Change("1", name=" ")) == ("InvalidChange", "name is missing")
        assert await refusal(handle, Change("2", admin_email="bo")) == (
            "InvalidChange",
            "admin.email is no e-mail address",
        )
        assert await refusal(handle, Change("3")) == ("InvalidChange", "it changes nothing")
        assert await refusal(handle, Change("", name="Bolt")) == ("InvalidChange", "command_id is missing")
        gate.open()
        await handle.result()
    assert (await rows(stage))["tenant"][0]["name"] == "Acme"


async def test_progress_shows_where_a_creation_is(stage: Stage) -> None:
    gate = HeldStep("set-up-data", "after")
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()

        async def look() -> SagaProgress:
            return await handle.query("progress", result_type=SagaProgress)

        before = ["validate", "create-tenant", "create-admin-user"]
        await eventually(look, lambda seen: seen == SagaProgress("running", "set-up-data", 65, before, [], [], "", []))
        gate.open()
        await handle.result()


async def test_commands_that_cannot_be_read_are_refused_and_not_lost(stage: Stage) -> None:
    gate = HeldStep("create-tenant", "before")
    nameless, named = {"command_id": 5}, {"command_id": "1", "actor": []}
    async with stage.worker(gate):
        handle = await create(stage)
        await gate.wait_reached()
        await stage.signal(handle.id, "cancel", nameless)
        await stage.signal(handle.id, "change", named)
        reported = [await refusal(handle, nameless, "cancel"), await refusal(handle, named)]
        gate.open()
        await handle.result()
        end = await handle.query("progress", result_type=SagaProgress)
    faults = "command_id must be a text, not a number", "actor must be a text, not a list"
    assert reported == [("InvalidCancel", faults[0]), ("InvalidChange", faults[1])]
    assert end.refused == [f"unknown: {faults[0]}", f"1: {faults[1]}"]
