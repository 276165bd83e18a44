"""A stage for approvals, on the shared servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.support.stage import Stage
from tests.support.stage import stage as staged
from tests.workflows.approval.scenarios import FAMILY


@pytest.fixture
async def stage(application_database: str, temporal_client: Client, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(FAMILY, application_database, temporal_client, tmp_path / "mail") as played:
        yield played
