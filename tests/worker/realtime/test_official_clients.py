"""Supabase's own clients subscribe to the tests' protocol server, so that it resembles what they were written for."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.text import TextReceiveStream
from realtime import AsyncRealtimeClient

from tests.support.eventually import eventually
from tests.support.realtime_server import RealtimeServer, jwt
from tests.support.running import fetch
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(120)
HERE = Path(__file__).parent / "js"
SERVICE = jwt("service_role")
SOON_S = 15.0


async def insert_and_roll_back(dsn: str) -> None:
    """One message that is committed, and before it one that is not."""
    async with connected(dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select outbox.enqueue('rolled-back')")
        await transaction.rollback()
        await connection.execute("select outbox.enqueue('committed')")


async def test_python_client_receives_what_was_committed(server: RealtimeServer, supabase: str) -> None:
    topics: list[str] = []
    states: list[str] = []
    ready, received = anyio.Event(), anyio.Event()

    def change(payload: Any) -> None:
        topics.append(payload["data"]["record"]["topic"])
        received.set()

    client = AsyncRealtimeClient(server.url, SERVICE, auto_reconnect=False)
    channel = client.channel("outbox")
    channel.on_postgres_changes("INSERT", change, table="message", schema="outbox")
    channel.on_system(lambda _: ready.set())
    try:
        await channel.subscribe(lambda state, _error: states.append(state.value))
        with anyio.fail_after(SOON_S):
            await ready.wait()
            await insert_and_roll_back(supabase)
            await received.wait()
    finally:
        await client.close()
    assert states[0] == "SUBSCRIBED"
    assert topics == ["committed"]


async def test_python_client_receives_broadcasts(server: RealtimeServer, supabase: str) -> None:
    await fetch(supabase, "select outbox.enable_broadcast()")
    received = anyio.Event()
    joined = anyio.Event()
    client = AsyncRealtimeClient(server.url, SERVICE, auto_reconnect=False)
    channel = client.channel("outbox", {"config": {"broadcast": None, "presence": None, "private": True}})
    channel.on_broadcast("wake", lambda _: received.set())
    try:
        await channel.subscribe(lambda state, _error: joined.set() if state.value == "SUBSCRIBED" else None)
        with anyio.fail_after(SOON_S):
            await joined.wait()
            await eventually(server.has_subscribed, bool)
            await insert_and_roll_back(supabase)
            await received.wait()
    finally:
        await client.close()


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript client installed, at the versions that the lock file names."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed here; .ci/run installs them")
    folder = tmp_path_factory.mktemp("js")
    for name in ("package.json", "package-lock.json", "subscribe.mjs"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    if done.returncode:
        pytest.skip(f"npm cannot install Supabase's client here: {done.stderr.strip().splitlines()[-1]}")
    return folder


@asynccontextmanager
async def subscribed(folder: Path, server: RealtimeServer, via: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The JavaScript client's output, from its beginning."""
    command = ["node", "subscribe.mjs", server.url, SERVICE, via]
    async with await anyio.open_process(command, cwd=folder) as process:
        assert process.stdout is not None
        text = TextReceiveStream(process.stdout)

        async def lines() -> AsyncIterator[dict[str, Any]]:
            left = ""
            async for chunk in text:
                left += chunk
                *whole, left = left.split("\n")
                for line in whole:
                    yield json.loads(line)

        try:
            yield lines()
        finally:
            process.kill()


async def until(output: AsyncIterator[dict[str, Any]], what: str) -> dict[str, Any]:
    """The next thing of this kind."""
    with anyio.fail_after(SOON_S):
        async for line in output:
            if line["what"] == what:
                return line
    raise AssertionError(f"the client ended before {what}")


async def test_javascript_client_receives_what_was_committed(
    javascript: Path, server: RealtimeServer, supabase: str
) -> None:
    async with subscribed(javascript, server, "postgres_changes") as output:
        await until(output, "SUBSCRIBED")
        await until(output, "system")
        await insert_and_roll_back(supabase)
        assert (await until(output, "insert"))["detail"]["topic"] == "committed"


async def test_javascript_client_receives_broadcasts(javascript: Path, server: RealtimeServer, supabase: str) -> None:
    await fetch(supabase, "select outbox.enable_broadcast()")
    async with subscribed(javascript, server, "broadcast") as output:
        await until(output, "SUBSCRIBED")
        assert (await until(output, "system"))["detail"]["message"] == "Replication connection established"
        await insert_and_roll_back(supabase)
        await until(output, "broadcast")
