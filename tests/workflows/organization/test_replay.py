"""Bootstraps that began under an earlier definition go on under this one."""

from __future__ import annotations

from pathlib import Path

from outbox_workflows.organization.definitions import WORKFLOWS
from tests.support.replaying import recorded, replay
from tests.workflows.organization.incompatible import CreatesFirst
from tests.workflows.organization.scenarios import SCENARIOS

HISTORIES = Path(__file__).parent / "histories"


async def test_every_branch_ever_recorded_replays() -> None:
    assert recorded(HISTORIES).keys() >= SCENARIOS.keys()
    assert await replay(HISTORIES, WORKFLOWS) == {}


async def test_an_incompatible_change_is_noticed_in_every_branch() -> None:
    failed = await replay(HISTORIES, [CreatesFirst])
    assert failed.keys() == recorded(HISTORIES).keys()
    assert all("Nondeterminism" in str(error) for error in failed.values())
