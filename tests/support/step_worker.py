"""A Temporal worker as a process of its own that kills itself in one step: a crash at the worst moment.

`python -m tests.support.step_worker FAMILY DSN ADDRESS TASK_QUEUE MAIL_FOLDER STEP MOMENT`
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import cast

import anyio
from temporalio.client import Client
from temporalio.worker import Worker

from outbox_workflows.shared.database import open_application
from outbox_workflows.shared.mail import FileMailer
from tests.support.stage import Family, Stage
from tests.support.steps import Killer, Moment


@contextmanager
def dying_worker(stage: Stage, family: str, step: str, moment: Moment = "after") -> Iterator[subprocess.Popen[bytes]]:
    """Run such a process for the block. It ends by SIGKILL as soon as it is in the step."""
    address = stage.client.service_client.config.target_host
    places = [family, stage.dsn, address, stage.task_queue, str(stage.mail_folder), step, moment]
    with subprocess.Popen([sys.executable, "-m", "tests.support.step_worker", *places]) as process:
        try:
            yield process
        finally:
            process.kill()


async def _serve(family: str, dsn: str, address: str, task_queue: str, mails: str, step: str, moment: str) -> None:
    played: Family = import_module(f"tests.workflows.{family}.scenarios").FAMILY
    async with open_application(dsn, "outbox", size=4) as application:
        worker = Worker(
            await Client.connect(address),
            task_queue=task_queue,
            workflows=played.workflows,
            activities=played.activities(application, FileMailer(Path(mails))),
            interceptors=[Killer(step, cast("Moment", moment))],
            max_cached_workflows=0,  # Temporal would keep the workflow for this very worker for a while
        )
        await worker.run()


if __name__ == "__main__":
    anyio.run(_serve, *sys.argv[1:])
