"""`outbox health` for a container's check, and a worker that cannot have its port."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
from anyio import to_thread

from outbox.model.events import Held
from outbox.observability.http_server import listen
from tests.support.probing import becomes, free_port
from tests.support.running import enqueue, running
from tests.support.sinks import FakeSink

pytestmark = pytest.mark.timeout(60)


async def outbox(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    foreign = ("OUTBOX_", "DATABASE_", "PG", "LOG_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | environment
    command = [sys.executable, "-m", "outbox", *arguments]
    done = await to_thread.run_sync(
        partial(subprocess.run, command, env=env, capture_output=True, text=True, timeout=45)
    )
    return done.returncode, done.stdout, done.stderr


async def test_it_says_in_one_line_and_an_exit_code_how_the_worker_is(database: str) -> None:
    sink, port = FakeSink(), free_port()
    check = partial(outbox, OUTBOX_HTTP_PORT=str(port))
    async with running(database, sink, http_port=port) as relay:
        await becomes(port, "/readyz", 200)
        assert await check("health") == (0, "ready\n", "")
        sink.available = False
        await enqueue(database)
        await relay.log.wait_for(Held)
        code, out, err = await check("health")
        assert (code, err) == (1, "")
        assert out.startswith("not ready: relay: holding for ")
        assert out.endswith("sink: FakeSinkDown: the fake sink is set to be unavailable\n")
        assert await check("health", "--live") == (0, "live\n", "")
        sink.available = True


async def test_without_an_answer_it_fails_with_one_line() -> None:
    port = free_port()
    code, out, err = await outbox("health", OUTBOX_HTTP_PORT=str(port))
    assert (code, out) == (1, "")
    assert err == f"outbox: no worker answers at 127.0.0.1:{port}: [Errno 111] Connection refused\n"
    code, _, err = await outbox("health", DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert (code, err) == (2, "outbox: OUTBOX_HTTP_PORT is not set: that is where a worker serves its health\n")


async def test_a_worker_ends_with_one_line_if_its_port_is_taken() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    sink = "tests.support.sinks:null_sink"
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = await outbox("run", DATABASE_URL=nowhere, OUTBOX_SINK=sink, OUTBOX_HTTP_PORT=port)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"{port}: address already in use" in err
