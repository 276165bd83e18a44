"""How the suite itself runs: what is slow, and the server that its processes share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from outbox.model.errors import OutboxError
from tests.support.running import fetch
from tests.support.shared import ServerHost, SharedServer, shared_server

TESTS = Path(__file__).parents[1]
MARK = re.compile(r'mark\.slow\b(?:\("(.+?)"\))?')


def test_every_slow_test_has_a_reason() -> None:
    reasons = [
        (path.name, reason)
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__)
        for reason in MARK.findall(path.read_text(encoding="utf-8"))
    ]
    assert reasons
    assert [name for name, reason in reasons if not reason] == []


def test_the_shared_server_starts_once_and_only_if_it_is_needed() -> None:
    happened: Counter[str] = Counter()

    @contextmanager
    def server() -> Iterator[SharedServer]:
        happened["start"] += 1
        yield SharedServer("127.0.0.1:7233")
        happened["end"] += 1

    unused, used = ServerHost(server), ServerHost(server)
    unused.close()
    assert not happened
    with ThreadPoolExecutor() as threads:
        answers = set(threads.map(shared_server, [used.socket] * 8))
    used.close()
    assert answers == {SharedServer("127.0.0.1:7233")}
    assert happened == {"start": 1, "end": 1}


def test_a_shared_server_that_cannot_start_fails_each_test_that_needs_it() -> None:
    def server() -> SharedServer:
        raise OutboxError("no such program")

    host = ServerHost(server)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(OutboxError, match="no such program"):
            shared_server(host.socket)
    host.close()


async def test_statements_share_a_session_and_nothing_in_it(database: str) -> None:
    async def session() -> tuple[int, str]:
        [row] = await fetch(database, "select pg_backend_pid() as pid, current_setting('work_mem') as work_mem")
        return row["pid"], row["work_mem"]

    pid, work_mem = await session()
    await fetch(database, "set work_mem = '7MB'")
    assert await session() == (pid, work_mem)
    await fetch(database, f"alter database {database.rpartition('/')[2]} set work_mem = '9MB'")
    another, changed = await session()
    assert another != pid
    assert changed == "9MB"


async def test_a_statement_beside_another_has_a_session_of_its_own(database: str) -> None:
    pids: list[int] = []

    async def session() -> None:
        [row] = await fetch(database, "select pg_backend_pid() as pid, pg_sleep(0.05)")
        pids.append(row["pid"])

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(session)
    assert len(set(pids)) == 3
