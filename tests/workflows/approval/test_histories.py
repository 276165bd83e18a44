"""Approvals that have begun go on under this version of their definitions."""

from __future__ import annotations

import re
from pathlib import Path

from temporalio.workflow import NondeterminismError

from outbox_workflows.approval.definitions import WORKFLOWS, EscalatingApproval
from tests.support.replaying import recorded, replay
from tests.workflows.approval.changed import HastyApproval
from tests.workflows.approval.scenarios import SCENARIOS

HISTORIES = Path(__file__).parent / "histories"


async def test_every_branch_is_recorded_and_replays() -> None:
    assert {re.sub(r"-\d+$", "", name) for name in recorded(HISTORIES)} == set(SCENARIOS)
    assert await replay(HISTORIES, WORKFLOWS) == {}


async def test_an_incompatible_change_of_the_definition_is_found() -> None:
    failed = await replay(HISTORIES, [HastyApproval, EscalatingApproval])
    assert "approved" in failed
    assert "escalated-and-approved" not in failed
    assert isinstance(failed["approved"], NondeterminismError)
