"""A Temporal worker for organisations in a process of its own, to be killed: `python -m tests.workflows.organization.worker_process`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from temporalio.client import Client

from tests.workflows.organization.conftest import House


async def main() -> None:
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    house = House(os.environ["DATABASE_URL"], client, os.environ["TASK_QUEUE"], Path(os.environ["FOLDER"]))
    async with house.serving():
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
