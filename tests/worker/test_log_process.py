"""The log of a real process: a reader that is stuck holds up no delivery, and its last line has the log's form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from anyio import to_thread

from tests.support.eventually import eventually
from tests.support.probing import free_port
from tests.support.running import counts, enqueue

pytestmark = pytest.mark.timeout(120)
MESSAGES = 1_000
ENDS_WITHIN_S = 20.0


@contextmanager
def unread(database: str, form: str, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a pipe as standard error that is not read."""
    own = {"DATABASE_URL": database, "LOG_LEVEL": "DEBUG", "OUTBOX_LOG_FORMAT": form, **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox", *command], env=os.environ | own, stderr=subprocess.PIPE, pipesize=4096
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("form", ["text", "json"])
async def test_an_unread_pipe_stops_no_delivery_and_no_drain(database: str, form: str) -> None:
    sink = {"OUTBOX_SINK": "tests.support.sinks:null_sink", "OUTBOX_BATCH": "10", "OUTBOX_PREFETCH": "10"}
    with unread(database, form, "run", **sink) as worker:
        await enqueue(database, MESSAGES)
        await eventually(lambda: counts(database), lambda found: found["history"] == MESSAGES)
        worker.terminate()
        assert await to_thread.run_sync(worker.wait, ENDS_WITHIN_S) == 0


def ended(*command: str, **environment: str) -> tuple[int, list[str]]:
    """A process's exit code, and what it wrote on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "outbox", *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("command", [("run",), ("workflows", "run")])
def test_the_line_of_an_end_by_a_wrong_setting_is_json_where_the_log_is(command: tuple[str, ...]) -> None:
    own = {"DATABASE_URL": "postgresql://localhost/x", "OUTBOX_LEASE_S": "soon", "OUTBOX_WORKFLOWS_FAMILIES": "none"}
    code, lines = ended(*command, OUTBOX_LOG_FORMAT="json", **own)
    entries = [json.loads(line) for line in lines]
    assert code == 2
    assert {entry["level"] for entry in entries} == {"CRITICAL"}
    assert any("OUTBOX_LEASE_S" in entry["error"] for entry in entries)
    assert {entry["exit_code"] for entry in entries} == {2}
    code, lines = ended(*command, OUTBOX_LOG_FORMAT="text", **own)
    assert code == 2
    assert all(line.startswith("outbox: ") for line in lines)


async def test_the_line_of_an_end_by_a_wrong_schema_is_json_where_the_log_is(empty_database: str) -> None:
    sink = {"OUTBOX_SINK": "tests.support.sinks:null_sink", "OUTBOX_HTTP_PORT": str(free_port())}
    code, lines = await to_thread.run_sync(partial(ended, "run", DATABASE_URL=empty_database, **sink))
    assert code == 3
    assert "outbox migrate" in json.loads(lines[-1])["error"]
    assert [json.loads(line) for line in lines]


def test_an_unexpected_fault_is_one_json_line_with_its_traceback(database: str) -> None:
    sink = {"OUTBOX_SINK": "tests.worker.test_log_process:faulty_sink"}
    code, lines = ended("run", DATABASE_URL=database, OUTBOX_LOG_FORMAT="json", **sink)
    last = json.loads(lines[-1])
    assert code == 1
    assert (last["level"], last["message"]) == ("CRITICAL", "crashed")
    assert "LookupError" in last["traceback"]


def faulty_sink(context: object) -> None:
    raise LookupError("no sink today")
