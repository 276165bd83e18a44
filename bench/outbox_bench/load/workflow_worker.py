"""A Temporal worker with one trivial workflow: `python -m bench.workflow_worker TASK_QUEUE`.

Says `ready` when it polls. It ends with its standard input, so it never outlives the process that started it.
"""

from __future__ import annotations

import sys

import anyio
from anyio import to_thread
from temporalio.worker import Worker

from outbox_bench.load.definitions import BenchWorkflow
from outbox_temporal.sdk.client import connect
from outbox_temporal.sdk.worker import serving


async def main(task_queue: str) -> None:
    """Serve until standard input ends."""
    client = await connect()
    async with serving(Worker(client, task_queue=task_queue, workflows=[BenchWorkflow])):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
