"""A stage for each test, with a tenant that is not there yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.support.stage import Stage
from tests.support.stage import stage as open_stage
from tests.workflows.tenant.scenarios import FAMILY


@pytest.fixture
async def stage(application_database: str, temporal_client: Client, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(FAMILY, application_database, temporal_client, tmp_path / "mail") as opened:
        yield opened
