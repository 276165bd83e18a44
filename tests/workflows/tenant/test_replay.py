"""Workflows that began under earlier definitions go on under these."""

from __future__ import annotations

from pathlib import Path

from outbox_workflows.tenant.definitions import WORKFLOWS
from tests.support.replaying import recorded, replay
from tests.workflows.tenant.incompatible import Hasty
from tests.workflows.tenant.scenarios import SCENARIOS

HISTORIES = Path(__file__).parent / "histories"


def test_every_branch_has_a_recorded_history() -> None:
    assert set(recorded(HISTORIES)) == set(SCENARIOS)


async def test_recorded_histories_are_replayed_as_they_were() -> None:
    assert await replay(HISTORIES, WORKFLOWS) == {}


async def test_a_definition_that_would_act_differently_is_found() -> None:
    changed = [Hasty, *WORKFLOWS[1:]]
    failed = await replay(HISTORIES, changed)
    assert {"creation-created", "creation-undone"} <= set(failed)
    assert not any(name.startswith(("deletion", "suspension")) for name in failed)
    assert "Nondeterminism" in str(failed["creation-created"])
