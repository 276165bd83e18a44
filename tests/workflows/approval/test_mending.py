"""A terminated workflow leaves its approval pending: `outbox workflows mend` ends it."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from tests.cli.test_cli import Done, outbox
from tests.support.eventually import eventually
from tests.support.shared import SharedServer
from tests.support.stage import Stage
from tests.workflows.approval.scenarios import ALICE, begin, command, standing

pytestmark = pytest.mark.timeout(120)
ROW = "select state, decided_by, decided_at, comment, revision from app.approval where workflow_id = $1"


async def row(stage: Stage, handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    [found] = await stage.fetch(ROW, handle.id)
    return dict(found)


async def test_only_the_pending_approval_of_a_terminated_workflow_is_ended_and_only_once(
    stage: Stage, temporal_server: SharedServer
) -> None:
    async def repair(*flags: str) -> Done:
        return await outbox(stage.dsn, "workflows", "mend", *flags, TEMPORAL_ADDRESS=temporal_server.address)

    async with stage.worker():
        ill, well, done = [await begin(stage, approval_id=name) for name in ("ill", "well", "done")]
        for handle in (ill, well, done):
            await standing(handle, lambda found: found.revision == 1)
            await eventually(lambda handle=handle: stage.audited(handle.id), bool)  # type: ignore[misc]
        await done.execute_update("approve", command(ALICE))
        await ill.terminate(reason="wrong amount")
        line = f"approval ill of tenant {stage.tenant_id}: its workflow was terminated: wrong amount"

        found = await eventually(
            lambda: repair("--dry-run", "--since", "5m"), lambda reported: bool(reported.out.count("\n") > 1)
        )
        assert (found.code, found.out) == (0, f"{line}\n1 would be ended\n")
        assert (await row(stage, ill))["state"] == "pending"
        assert (await repair()).out == f"{line}\n1 ended\n"
        assert (await repair()).out == "0 ended\n"
        assert [(await row(stage, handle))["state"] for handle in (well, done)] == ["pending", "approved"]
    ended = await row(stage, ill)
    assert (ended["state"], ended["decided_by"], ended["revision"]) == ("failed", "system", 2)
    assert ended["comment"] == "its workflow was terminated: wrong amount"
    assert ended["decided_at"] == (await ill.describe()).close_time
    assert (await stage.audited(ill.id))[-1] == "failed"
    reported = (await stage.heard("approval.failed"))[-1]
    assert (reported["approval_id"], reported["state"], reported["reason"]) == ("ill", "failed", ended["comment"])
    away = await outbox(stage.dsn, "workflows", "mend", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert (away.code, away.out) == (1, "")
    assert away.fault.startswith("Temporal cannot be reached: ")
