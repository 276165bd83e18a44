"""An application's surroundings: its database, Temporal, a task queue of its own, and the worker's settings."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.shared import SharedServer


@pytest.fixture
def task_queue() -> str:
    return f"workflows-{uuid4()}"


@pytest.fixture
def surroundings(
    application_database: str, temporal_server: SharedServer, task_queue: str, tmp_path: Path
) -> dict[str, str]:
    """The environment of a workflow worker."""
    return {
        "DATABASE_URL": application_database,
        "TEMPORAL_ADDRESS": temporal_server.address,
        "OUTBOX_WORKFLOWS_TASK_QUEUE": task_queue,
        "OUTBOX_WORKFLOWS_MAIL": f"file:{tmp_path / 'mail'}",
        "OUTBOX_WORKFLOWS_DNS_FOLDER": str(tmp_path / "dns"),
    }
