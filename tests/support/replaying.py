"""Replaying recorded histories: a definition that would act differently than it did fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer


def recorded(folder: Path) -> dict[str, WorkflowHistory]:
    """The histories of a folder by the stems of their files. Fails where there are none."""
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    assert found, f"no histories in {folder}: run python -m tests.support.tools.histories {folder.parent.name}"
    return found


async def replay(folder: Path, workflows: Sequence[type]) -> dict[str, Exception]:
    """Replay every history of a folder; return by name what failed, and how."""
    replayer = Replayer(workflows=workflows)
    failed = {}
    for name, history in recorded(folder).items():
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
        if result.replay_failure is not None:
            failed[name] = result.replay_failure
    return failed


def _read(path: Path) -> WorkflowHistory:
    parsed = orjson.loads(path.read_bytes())
    started = parsed["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], parsed)
