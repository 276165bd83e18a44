"""A worker in a process of its own that is killed in a step: `python -m tests.tenant.process DSN ADDRESS QUEUE STEP`."""

from __future__ import annotations

import sys

import anyio
from temporalio.client import Client
from temporalio.worker import Worker

from tests.support.steps import Killer
from workflows.application.database import open_application
from workflows.tenant.activities import TenantActivities
from workflows.tenant.definitions import WORKFLOWS


async def main(dsn: str, address: str, task_queue: str, step: str) -> None:
    """Work until the step, and die in it after its transaction has committed, before anybody hears of it."""
    client = await Client.connect(address)
    async with open_application(dsn, "outbox", size=4) as application:
        worker = Worker(
            client,
            task_queue=task_queue,
            workflows=WORKFLOWS,
            activities=TenantActivities(application).all(),
            interceptors=[Killer(step, "after")],
            max_cached_workflows=0,  # a workflow that sticks to a dead worker is waited for, ten seconds
        )
        await worker.run()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
