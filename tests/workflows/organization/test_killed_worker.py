"""A worker that is killed while it takes a step: another one takes the step again, and nothing is done twice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.workflows.organization.conftest import CHAIN, EVENTS, INVITED, ROOT, House


@pytest.mark.slow("kills a process in each step")
@pytest.mark.timeout(90)
async def test_a_worker_killed_in_each_step_is_replaced_by_another(house: House) -> None:
    """Six bootstraps stand in six steps, each within its transaction, when their worker is killed."""
    async with house.relaying(), house.closed_gates() as gates:
        made = {step: await house.initiate(*INVITED) for step in EVENTS}
        for step, organization in made.items():
            await house.gate(organization, EVENTS[step], refuse=False)
            await house.delivered(organization.event_id)
        worker = _worker(house)
        try:
            await gates.reached(len(EVENTS))
        finally:
            worker.kill()
            worker.wait()
        await gates.open()
        async with house.serving():
            for organization in made.values():
                await house.end(organization)
                assert await house.events(organization) == CHAIN
                assert await house.status(organization) == ("active", None)
    assert len(house.names()) == len(made)
    assert len(house.mails()) == 2 * len(made)


def _worker(house: House) -> subprocess.Popen[bytes]:
    where = {
        "DATABASE_URL": house.dsn,
        "TEMPORAL_ADDRESS": os.environ["TEMPORAL_ADDRESS"],
        "TASK_QUEUE": house.task_queue,
        "FOLDER": str(house.folder),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.organization.worker_process"], cwd=ROOT, env=os.environ | where
    )
