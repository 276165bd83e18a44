"""Killed at any moment and run again, an import moves each row once; interrupted, it says how to go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import orjson
import pytest
from anyio import to_thread

from tests.support.eventually import eventually
from tests.support.running import counts, running
from tests.support.sql import connected
from tests.temporal.importing.engine import build, ended, exactly_once, start, written

pytestmark = pytest.mark.timeout(300)  # processes, and on a busy machine each takes its time
LONG = os.environ.get("OUTBOX_CHAOS") == "long"
ROWS = 50_000 if LONG else 5_000
GATE = """
    create function gate() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared(4242);
        return null;
    end $$;
    create trigger gate after insert on outbox.imported for each row when (new.identity = '{identity}') execute function gate();
"""
"""Stops an import within the transaction that moves a certain row, for as long as the lock is held."""
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
READING = (
    "select count(*) from pg_stat_activity where application_name = 'outbox import' and state = 'idle in transaction' "
    "and datname = current_database()"
)
"""Whether the source is open."""
CONNECTED = (
    "select count(*) from pg_stat_activity where application_name = 'outbox import' and datname = current_database()"
)


@asynccontextmanager
async def stopped_at(dsn: str, row: int) -> AsyncIterator[asyncpg.Connection]:
    """Have imports stop in the transaction of this row until the block ends."""
    async with connected(dsn) as connection:
        await connection.execute("drop trigger if exists gate on outbox.imported; drop function if exists gate()")
        await connection.execute(GATE.format(identity=f"wi-{row:06}"))
        await connection.execute("select pg_advisory_lock(4242)")
        yield connection
        await connection.execute("select pg_advisory_unlock(4242)")


async def waits(connection: asyncpg.Connection) -> None:
    """Return when an import stands at the gate."""
    await eventually(lambda: connection.fetchval(WAITING), bool, timeout_s=90)


async def killed(command: subprocess.Popen[str]) -> None:
    """SIGKILL it, and return when it is gone."""
    command.kill()
    await to_thread.run_sync(command.communicate)
    assert command.returncode == -signal.SIGKILL


async def test_after_two_kills_within_a_batch_and_another_run_each_row_has_one_message(
    database: str, tmp_path: Path
) -> None:
    await build(database, 3000)
    path = written(tmp_path)
    for row, before in ((1234, 1200), (2345, 2300)):
        async with stopped_at(database, row) as connection:
            command = start(database, path, "--batch", "100", cwd=tmp_path)
            await waits(connection)
            assert (await counts(database))["message"] == before
            await killed(command)
        async with connected(database) as connection:  # until the server has noticed
            await eventually(lambda: connection.fetchval(CONNECTED), lambda number: number == 0)
        assert (await counts(database))["message"] == before
    code, out, _ = await ended(start(database, path, "--batch", "100", cwd=tmp_path))
    assert (code, [line.split() for line in out.splitlines()]) == (
        0,
        [["3000", "rows"], ["700", "moved"], ["2300", "already", "there"], ["0", "refused"]],
    )
    assert await exactly_once(database, 3000)


async def test_interrupted_it_ends_after_the_batch_and_says_how_to_go_on(database: str, tmp_path: Path) -> None:
    await build(database, 2000)
    path = written(tmp_path)
    async with stopped_at(database, 777) as connection:
        command = start(database, path, "--batch", "100", "--report", "r.json", cwd=tmp_path)
        await waits(connection)
        command.send_signal(signal.SIGINT)
    code, out, err = await ended(command)
    assert code == 130
    assert err.splitlines()[-1] == "outbox: interrupted after 800 of 2000 rows; the same command goes on with the rest"
    assert "800  moved" in out
    assert '"interrupted": true' in (tmp_path / "r.json").read_text()
    assert await exactly_once(database, 800)
    assert (await ended(start(database, path, cwd=tmp_path)))[0] == 0
    assert await exactly_once(database, 2000)


async def test_interrupted_twice_it_ends_at_once_and_loses_nothing(database: str, tmp_path: Path) -> None:
    await build(database, 1000)
    path = written(tmp_path)
    async with stopped_at(database, 555) as connection:
        command = start(database, path, "--batch", "100", cwd=tmp_path)
        await waits(connection)
        for _ in range(2):  # of two signals at once, one may be lost
            command.send_signal(signal.SIGINT)
            with suppress(AssertionError):
                await eventually(lambda: connection.fetchval(READING), lambda number: number == 0, timeout_s=3)
        code, _, err = await ended(command)
        assert (code, "interrupted after 500 of 1000 rows" in err) == (130, True)
    assert (await ended(start(database, path, cwd=tmp_path)))[0] == 0
    assert await exactly_once(database, 1000)


@pytest.mark.chaos
@pytest.mark.slow("kills several processes, one after another")
@pytest.mark.timeout(1200)
async def test_killed_at_any_moment_while_a_worker_delivers_each_row_is_delivered_once(
    database: str, tmp_path: Path
) -> None:
    await build(database, ROWS)
    path = written(tmp_path)
    async with running(database) as worker, connected(database) as connection:
        noted = "select count(*) from outbox.imported"
        for share in (0.2, 0.6):
            command = start(database, path, "--batch", "20", cwd=tmp_path)
            least = int(ROWS * share) + random.randrange(ROWS // 10)
            await eventually(
                lambda: connection.fetchval(noted), lambda number, least=least: number >= least, timeout_s=120
            )
            await killed(command)
        assert await connection.fetchval(noted) < ROWS
        code, out, _ = await ended(start(database, path, "--batch", "200", cwd=tmp_path))
        assert code == 0, out
        await worker.wait_completed(ROWS, timeout_s=300)
        started = Counter(orjson.loads(message.target or "")["workflow_id"] for message in worker.sink.received)
    assert (len(started), set(started.values())) == (ROWS, {1})
    assert await counts(database) == {"message": 0, "history": ROWS, "dead_letter": 0}
