"""A session locks the outbox's tables: everything says so, names the session, and says what ends it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import pytest

from outbox.model.events import DatabaseLost
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.cli.test_cli import outbox
from tests.support.eventually import eventually
from tests.support.probing import becomes, free_port
from tests.support.running import enqueue, fetch, running
from tests.support.sql import blocked_on, connected

pytestmark = pytest.mark.timeout(120)
NULL = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}
CULPRIT = "a forgotten psql"
WITHIN_S = 2.0


@asynccontextmanager
async def locked(dsn: str, statement: str) -> AsyncIterator[int]:
    """A session that has run a statement in a transaction and idles; its process number."""
    async with connected(dsn) as connection:
        await connection.execute(f"set application_name = '{CULPRIT}'; begin; {statement}")
        yield await connection.fetchval("select pg_backend_pid()")


async def for_long(dsn: str, pid: int) -> None:
    """Return when the transaction is older than a moment."""

    async def age_s() -> float:
        question = (
            "select extract(epoch from clock_timestamp() - xact_start)::float8 from pg_stat_activity where pid = $1"
        )
        return float((await fetch(dsn, question, pid))[0][0])

    await eventually(age_s, lambda seconds: seconds > 2.5)


ALTER = "alter table outbox.message add column foo int"


@pytest.mark.parametrize("statement", [ALTER, "lock table outbox.message in share mode"])
async def test_doctor_names_the_lock_and_its_cure_and_does_not_call_it_safe(database: str, statement: str) -> None:
    async with locked(database, statement) as pid:
        await for_long(database, pid)
        done = await outbox(database, "doctor", "--json", **NULL)
        report = json.loads(done.out)
        [finding] = [found for found in report["findings"] if found["what"] == "locks"]
        assert (done.code, report["safe"], finding["grade"]) == (1, False, "fault")
        assert CULPRIT in finding["detail"]
        assert "message" in finding["detail"]
        assert finding["cure"] == f"select pg_terminate_backend({pid});"
        await fetch(database, finding["cure"])
    done = await outbox(database, "doctor", **NULL)
    assert done.out.splitlines()[-1].startswith("safe to start")


async def test_a_lock_that_waits_is_named_with_the_transaction_that_it_waits_for(database: str) -> None:
    async with locked(database, "select count(*) from outbox.message") as pid, connected(database) as waiting:
        await waiting.execute("set application_name = 'migration'")
        async with anyio.create_task_group() as tasks, connected(database) as observer:
            tasks.start_soon(waiting.execute, ALTER)
            async with blocked_on(observer, waiting):
                report = json.loads((await outbox(database, "status", "--json")).out)
                await fetch(database, "select pg_terminate_backend($1)", pid)
        first, second = report["blocked_by"].split("; process")
        assert first.endswith(f"to end it: select pg_terminate_backend({pid});")
        assert "waits for AccessExclusiveLock on message" in second


async def test_status_answers_in_two_seconds_and_says_what_is_missing_and_why(database: str) -> None:
    await enqueue(database, 3)
    async with locked(database, ALTER) as pid:
        began_s = monotonic()
        await outbox(database, "--version")
        start_s = monotonic() - began_s
        began_s = monotonic()
        done = await outbox(database, "status", "--json")
        assert monotonic() - began_s - start_s < WITHIN_S + 1.0  # the start of a process is not the same each time
        report = json.loads(done.out)
        assert {"messages", "errors"} <= set(report["missing"])
        assert {"workers", "pauses", "limits", "dead_letters", "completed"} <= set(report)
        assert CULPRIT in report["blocked_by"]
        text = (await outbox(database, "status")).out
        assert "missing: messages" in text
        assert f"pg_terminate_backend({pid})" in text
    report = json.loads((await outbox(database, "status", "--json")).out)
    assert (report["missing"], report["blocked_by"]) == ({}, None)
    assert report["messages"]["pending"] == 3


@pytest.mark.parametrize("table", ["worker", "migration", "history", "dead_letter", "pause"])
async def test_status_shows_the_rest_if_a_table_is_locked(database: str, table: str) -> None:
    await enqueue(database, 3)
    async with locked(database, f"lock table outbox.{table}"):
        report = json.loads((await outbox(database, "status", "--json")).out)
    assert report["missing"]
    assert CULPRIT in report["blocked_by"]
    assert len(report.keys() & {"messages", "workers", "dead_letters", "completed", "errors"}) >= 3


async def test_status_of_a_server_that_is_silent_ends_in_two_seconds_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began_s = monotonic()
        done = await outbox(f"postgresql://postgres@127.0.0.1:{port}/x?sslmode=disable", "status")
    assert done.code == 1
    assert "does not answer within 2 s" in done.fault
    assert monotonic() - began_s < WITHIN_S + 8.0


async def test_log_and_readiness_of_a_worker_name_the_lock(database: str) -> None:
    port = free_port()
    async with running(database, http_port=port) as relay, locked(database, ALTER) as pid:
        lost = await relay.log.wait_for(DatabaseLost, timeout_s=40)
        assert CULPRIT in lost.error
        assert f"pg_terminate_backend({pid})" in lost.error
        answer = await becomes(port, "/readyz", 503, CULPRIT)
        assert "AccessExclusiveLock on message" in answer.faults


async def test_a_prepared_transaction_is_named_with_its_cure() -> None:
    with PostgresServer.start(fsync=False, settings={"max_prepared_transactions": "3"}) as own:
        await migrate(own.dsn())
        async with connected(own.dsn()) as connection:
            await connection.execute("begin; lock table outbox.message; prepare transaction 'it''s mine'")
        report = json.loads((await outbox(own.dsn(), "status", "--json")).out)
        cure = report["blocked_by"].partition("to end it: ")[2]
        assert cure == "rollback prepared 'it''s mine';"
        await fetch(own.dsn(), cure)
        assert json.loads((await outbox(own.dsn(), "status", "--json")).out)["missing"] == {}


async def test_an_idle_transaction_that_holds_rows_is_a_warning(database: str) -> None:
    await enqueue(database, 1)
    async with locked(database, "select * from outbox.message for update") as pid:

        async def found() -> dict[str, str]:
            done = await outbox(database, "doctor", "--json", **NULL)
            return next(found for found in json.loads(done.out)["findings"] if found["what"] == "locks")

        finding = await eventually(found, lambda found: found["grade"] == "warning")
        assert "may have locked rows" in finding["detail"]
        assert str(pid) in finding["cure"]
