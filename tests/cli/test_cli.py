"""The command line against a real database: exit codes, and one line for every mistake."""

from __future__ import annotations

import inspect
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from anyio import to_thread
from asyncpg import Connection

from outbox.cli.commands.enqueue import enqueue
from outbox.model.events import SourceReady
from outbox.postgres.address.address import NOTHING_SET
from outbox.producer import NewMessage
from outbox.store.sql import migrations
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.commands import run
from tests.support.eventually import eventually
from tests.support.running import counts, running
from tests.support.sql import connected

LAST = migrations()[-1]
NO_SERVER = "postgresql://postgres@127.0.0.1:1/x"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """The only line that was written. A worker writes it in JSON, because its log goes to no terminal."""
        assert self.out == ""
        assert "Traceback" not in self.err
        [line] = self.err.splitlines()
        if line.startswith("{"):
            entry = json.loads(line)
            assert (entry["message"], entry["exit_code"]) == ("cannot go on", self.code)
            return str(entry["error"])
        assert line.startswith("outbox: ")
        return line.removeprefix("outbox: ")


async def outbox(dsn: str | None, *arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run the command in a process of its own, as a user does."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OUTBOX_", "DATABASE_", "DB_", "PG", "LOG_", "COLUMNS"))
    }
    env |= environment | ({} if dsn is None else {"DATABASE_URL": dsn})
    done = await to_thread.run_sync(partial(run, arguments, env=env, stdin=stdin))
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        yield connection


async def test_a_foreign_command_spoils_nothing_and_takes_no_name_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "foreign-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n", encoding="utf-8")
    entries = "[outbox.commands]\nbroken = foreign:nothing\nneedy = absent:app [more]\nmine = foreign:mine\nstatus = foreign:mine\n"
    (folder / "entry_points.txt").write_text(entries, encoding="utf-8")
    code = "def mine() -> None:\n    print('foreign')\n"
    (tmp_path / "foreign.py").write_text(code, encoding="utf-8")
    path = {"PYTHONPATH": str(tmp_path)}
    assert (await outbox(None, "mine", **path)).out == "foreign\n"
    assert "Show waiting messages" in (await outbox(None, "status", "--help", **path)).out
    listed = await outbox(None, "--help", **path)
    assert (listed.code, "Traceback" in listed.err) == (0, False)
    assert "not available" in listed.out
    broken = await outbox(None, "broken", **path)
    assert broken.code == 2
    assert broken.fault.startswith("`outbox broken` cannot be loaded: AttributeError: ")
    needy = await outbox(None, "needy", **path)
    assert needy.fault == "`outbox needy` cannot be loaded: No module named 'absent': pip install 'foreign[more]'"
    unknown = await outbox(None, "brokn", **path)
    assert (unknown.code, "Traceback" in unknown.err) == (2, False)


async def test_enqueue_on_a_terminal_says_that_it_reads(database: str) -> None:
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox.cli.main", "enqueue"],
        env=os.environ | {"DATABASE_URL": database},
        stdin=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(inside)
    os.write(terminal, b'{"topic": "typed"}\n\x04')
    out, err = await to_thread.run_sync(partial(process.communicate, timeout=45))
    os.close(terminal)
    assert (process.returncode, len(out.splitlines())) == (0, 1)
    assert err == "outbox: write one JSON object a line, then Ctrl-D; see `outbox enqueue --help`\n"


# What cannot be connected to


COMMANDS = [
    ["migrate"],
    ["migrate", "--status"],
    ["migrate", "--dry-run"],
    ["status"],
    ["status", "--json"],
    ["enqueue", "topic"],
]
every_command = pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)


@every_command
async def test_missing_database_url_is_one_line(arguments: list[str]) -> None:
    done = await outbox(None, *arguments)
    assert (done.code, done.fault) == (2, NOTHING_SET)


@every_command
async def test_refused_connection_is_one_line(arguments: list[str]) -> None:
    done = await outbox(NO_SERVER, *arguments)
    assert done.code == 1
    assert done.fault.startswith("connect to PostgreSQL at 127.0.0.1:1: ")
    assert "refused" in done.fault


@pytest.mark.parametrize(
    "dsn",
    [
        "garbage",
        "mysql://u:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u@h/d?sslmode=hunter2x",
    ],
)
async def test_dsn_that_cannot_be_read_is_one_line_without_the_password(dsn: str) -> None:
    done = await outbox(dsn, "status")
    assert done.code == 2
    assert done.fault.startswith("DATABASE_URL cannot be used: ")
    assert "hun" not in done.fault


async def test_unknown_host_is_one_line() -> None:
    done = await outbox("postgresql://postgres@no-such-host.invalid/x", "status")
    assert done.code == 1
    assert done.fault.startswith("connect to PostgreSQL at no-such-host.invalid:5432: ")


async def test_unknown_database_and_unknown_role_are_configuration(postgres: PostgresServer) -> None:
    for dsn in (postgres.dsn("no_such_database"), postgres.dsn().replace("postgres@", "no_such_role@")):
        done = await outbox(dsn, "status")
        assert done.code == 2
        assert "does not exist" in done.fault
        assert "DATABASE_URL" in done.fault


async def test_wrong_password_is_one_line_without_it(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("create role locked_out login password 'right'")
        hba = Path(await connection.fetchval("show hba_file"))
        before = hba.read_text()
        try:
            hba.write_text("host all locked_out 127.0.0.1/32 scram-sha-256\n" + before)
            await connection.execute("select pg_reload_conf()")
            dsn = database.replace("postgres@", "locked_out:hunter2@")
            done = await eventually(lambda: outbox(dsn, "status"), lambda done: "password" in done.err)
        finally:
            hba.write_text(before)
            await connection.execute("drop role locked_out; select pg_reload_conf()")
    assert done.code == 2
    assert 'password authentication failed for user "locked_out"' in done.fault
    assert "DATABASE_URL" in done.fault
    assert "hunter2" not in done.err


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["enqueue", "topic"], ["run"]], ids=" ".join)
async def test_missing_schema_is_exit_code_3_with_the_cure(empty_database: str, arguments: list[str]) -> None:
    done = await outbox(empty_database, *arguments, OUTBOX_SINK="tests.support.sinks:null_sink", LOG_LEVEL="ERROR")
    assert done.code == 3
    assert done.fault == "the database has no schema 'outbox': run `outbox migrate`"


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["status", "--no-such-option"], ["enqueue", "t", "--priority", "10"]]
)
async def test_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = await outbox(NO_SERVER, *arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


async def test_version_is_reported_without_a_database() -> None:
    from outbox import __version__

    done = await outbox(None, "--version")
    assert (done.code, done.out) == (0, f"outbox {__version__}\n")


# migrate


async def test_migrate_says_what_it_applied_and_then_that_nothing_is_left(empty_database: str) -> None:
    first, second = await outbox(empty_database, "migrate"), await outbox(empty_database, "migrate")
    assert (first.code, second.code) == (0, 0)
    assert first.out.splitlines()[0].split() == ["applied", "0001_tables"]
    assert len(first.out.splitlines()) == len(migrations()) + 1
    assert second.out == "schema outbox is up to date\n"


async def test_migrate_status_and_dry_run_change_nothing(empty_database: str) -> None:
    status, dry = (
        await outbox(empty_database, "migrate", "--status"),
        await outbox(empty_database, "migrate", "--dry-run"),
    )
    assert (status.code, dry.code) == (3, 0)
    assert status.out == dry.out
    assert [line.split()[0] for line in dry.out.splitlines()] == ["pending"] * len(migrations())
    async with connected(empty_database) as connection:
        assert await connection.fetchval("select to_regnamespace('outbox')") is None


async def test_migrate_status_of_a_current_schema_lists_it_and_succeeds(database: str) -> None:
    status, dry = await outbox(database, "migrate", "--status"), await outbox(database, "migrate", "--dry-run")
    assert (status.code, dry.code) == (0, 0)
    assert [line.split()[0] for line in status.out.splitlines()] == ["applied"] * len(migrations())
    assert dry.out == ""


async def test_migrate_refuses_an_edited_migration(db: Connection, database: str) -> None:
    await db.execute("update outbox.migration set checksum = 'x' where version = $1", LAST.version)
    done = await outbox(database, "migrate")
    assert done.code == 3
    assert f"{LAST.version:04d}_{LAST.name} was edited" in done.fault
    assert (await outbox(database, "migrate", "--status")).out.splitlines()[-1].startswith("edited")


async def test_another_schema_is_migrated_and_used(empty_database: str) -> None:
    assert (await outbox(empty_database, "migrate", OUTBOX_SCHEMA="team")).out.endswith("schema team is up to date\n")
    assert (await outbox(empty_database, "enqueue", "t", OUTBOX_SCHEMA="team")).code == 0
    assert (await outbox(empty_database, "status")).fault.startswith("the database has no schema 'outbox'")


@pytest.mark.parametrize("schema", ["No", "order"])
async def test_unusable_schema_name_is_one_line(empty_database: str, schema: str) -> None:
    done = await outbox(empty_database, "migrate", OUTBOX_SCHEMA=schema)
    assert done.code == 2
    assert f"'{schema}'" in done.fault
    assert "OUTBOX_SCHEMA" in done.fault


# enqueue


async def test_enqueue_from_arguments(db: Connection, database: str) -> None:
    target = '{"operation": "cancel_workflow", "workflow_id": "w"}'
    done = await outbox(
        database, "enqueue", "topic", '{"b":  1}', "--key", "k", "--headers", '{"h": "1"}', "--target", target,
        "--dedup-key", "d", "--available-at", "2100-01-01 00:00+00", "--priority", "3", "--tenant", "acme",
        "--expires-at", "2100-01-02 00:00+00", "--on-expiry", "discard", "--dedup-window", "2 hours", "--commit-order",
        "--message-id", "0199c1f4-7a3b-7c51-9d0e-3f6a2b8c4d5e",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    row = await db.fetchrow(
        """select *, available_at = '2100-01-01 00:00+00' and expires_at = '2100-01-02 00:00+00' as on_time,
                  dedup_window::text as window from outbox.message"""
    )
    assert done.out == "0199c1f4-7a3b-7c51-9d0e-3f6a2b8c4d5e\n"
    assert (row["tenant"], row["on_expiry"], row["window"]) == ("acme", "discard", "02:00:00")
    assert UUID(done.out.strip()) == row["message_id"]
    assert (row["topic"], row["payload"], row["key"], row["dedup_key"], row["priority"]) == (
        "topic",
        '{"b":  1}',
        "k",
        "d",
        3,
    )
    assert (json.loads(row["headers"]), json.loads(row["target"])) == ({"h": "1"}, json.loads(target))
    assert row["on_time"]


async def test_enqueue_takes_every_argument_of_the_function_in_sql(db: Connection) -> None:
    rows = await db.fetch("select unnest(proargnames) from pg_proc where oid = 'outbox.enqueue'::regproc")
    assert set(inspect.signature(enqueue).parameters) == {row[0] for row in rows}
    assert set(NewMessage.__annotations__) == {row[0] for row in rows}


async def test_enqueue_needs_nothing_but_a_topic(db: Connection, database: str) -> None:
    assert (await outbox(database, "enqueue", "topic")).code == 0
    row = await db.fetchrow("select * from outbox.message")
    assert row["payload"] is row["key"] is row["target"] is None


async def test_enqueue_reads_json_lines_and_prints_ids_in_their_order(db: Connection, database: str) -> None:
    lines = ['{"topic": "a", "payload": {"é": 1}}', "", '{"topic": "b"}', '  {"topic": "c", "priority": 9}  ']
    done = await outbox(database, "enqueue", stdin="\n".join(lines))
    assert (done.code, done.err) == (0, "")
    rows = await db.fetch("select message_id::text, topic from outbox.message order by seq")
    assert [row["topic"] for row in rows] == ["a", "b", "c"]
    assert done.out.split() == [row["message_id"] for row in rows]


async def test_enqueue_of_no_lines_enqueues_nothing(database: str) -> None:
    done = await outbox(database, "enqueue")
    assert (done.code, done.out, done.err) == (0, "", "")


async def test_enqueue_keeps_the_payloads_bytes(db: Connection, database: str) -> None:
    """A big integer or a chosen spacing must not pass through Python's numbers and come back as something else."""
    payload = '{"z": 1.10, "a":  123456789012345678901234567890}'
    await outbox(database, "enqueue", "argument", payload)
    await outbox(database, "enqueue", stdin=f'{{"topic": "line", "payload": {payload}}}')
    assert [row[0] for row in await db.fetch("select payload from outbox.message")] == [payload] * 2


@pytest.mark.parametrize(
    ("stdin", "line"),
    [
        ('{"topic": "a"}\n{"topic": \n', "line 2 is not JSON"),
        ("\n\nnonsense", "line 3 is not JSON"),
    ],
)
async def test_bad_json_line_is_named_by_its_number_and_nothing_is_enqueued(
    db: Connection, database: str, stdin: str, line: str
) -> None:
    done = await outbox(database, "enqueue", stdin=stdin)
    assert done.code == 2
    assert done.fault.startswith(line)
    assert await db.fetchval("select count(*) from outbox.message") == 0


@pytest.mark.parametrize("arguments", [["t", "{"], ["t", "--headers", "x"], ["t", "--target", "'"]])
async def test_bad_json_argument_is_named(database: str, arguments: list[str]) -> None:
    done = await outbox(database, "enqueue", *arguments)
    assert done.code == 2
    assert "is not JSON" in done.fault


@pytest.mark.parametrize(
    ("arguments", "stdin", "fault", "hint"),
    [
        ([""], "", "topic must not be empty", ""),
        (["t", "--headers", "[]"], "", "headers must be a JSON object", "pass {} or leave them out"),
        (["t", "--target", "{}"], "", "target.operation is missing", "use start_workflow, signal_workflow"),
        (["t", "--available-at", "soon"], "", "enqueue: available_at: invalid input syntax for type timestamp", ""),
        (["t", "--expires-at", "late"], "", "enqueue: expires_at: invalid input syntax for type timestamp", ""),
        (
            ["t", "--dedup-key", "d", "--dedup-window", "x"],
            "",
            "dedup_window: invalid input syntax for type interval",
            "",
        ),
        (["t", "--dedup-key", "d", "--dedup-window", "-1 h"], "", "dedup_window is -01:00:00, it must lie between", ""),
        (["t", "--tenant", ""], "", "tenant must not be empty", "pass null for none"),
        (["t", "--on-expiry", "drop", "--expires-at", "now"], "", "--on-expiry is 'drop': use bury or discard", ""),
        (["t", "--on-expiry", "discard"], "", "--on-expiry means nothing without --expires-at", ""),
        (["t", "--commit-order"], "", "--commit-order means nothing without --key", ""),
        (["t", "--message-id", "7"], "", "'7' is no message id: it is a UUID", ""),
        (["--tenant", "acme"], '{"topic": "a"}', "--tenant: without a topic, messages are read from standard", ""),
        ([], '{"topic": "a"}\n\n{"topic": "b", "payloud": 1}\n', "line 3: unknown name 'payloud'", "use the names"),
        ([], '{"topic": "a"}\n{"topic": "b", "expires_at": "x"}', "line 2: expires_at: invalid input syntax", ""),
        ([], '{"topic": "a"}\n[1]\n', "a message must be a JSON object", ""),
    ],
)
async def test_refusal_by_the_database_is_one_line_with_its_hint(
    db: Connection, database: str, arguments: list[str], stdin: str, fault: str, hint: str
) -> None:
    done = await outbox(database, "enqueue", *arguments, stdin=stdin)
    assert done.code in (1, 2)
    assert fault in done.fault
    assert hint in done.fault
    assert "PL/pgSQL" not in done.fault
    assert await db.fetchval("select count(*) from outbox.message") == 0


# status


async def test_status_as_json_is_one_object(db: Connection, database: str) -> None:
    await db.execute("select outbox.enqueue('a'), outbox.enqueue('b', available_at => now() + interval '1 day')")
    done = await outbox(database, "status", "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert report["messages"] | {"oldest_pending_s": None} == {
        "pending": 1,
        "processing": 0,
        "scheduled": 1,
        "waiting": 0,
        "retrying": 0,
        "oldest_pending_s": None,
    }
    assert report.keys() == {
        "messages",
        "dead_letters",
        "completed",
        "workers",
        "errors",
        "blocked_keys",
        "pauses",
        "limits",
        "missing",
        "blocked_by",
    }


async def test_status_for_people_shows_the_same(db: Connection, database: str) -> None:
    await db.execute("select outbox.enqueue(n::text) from generate_series(1, 3) n")
    await db.execute(
        """
        insert into outbox.worker (name, version, state, detail) values ('alice', '1', 'running', '{"in_flight": 7}');
        update outbox.message set attempts = 1, errors = '[{"kind": "Busy", "detail": "[/] not markup [red]"}]' where topic = '1'
        """
    )
    done = await outbox(database, "status", COLUMNS="120")
    assert (done.code, done.err) == (0, "")
    words = done.out.split()
    assert words[words.index("pending") + 1] == "3"
    assert words[words.index("retrying") + 1] == "1"
    assert "Busy in 1 × 1: [/] not markup [red]" in done.out
    assert {"alice", "running", "7"} <= set(words)


async def test_status_says_that_there_is_no_worker(database: str) -> None:
    assert "no worker is running" in (await outbox(database, "status")).out


async def test_mode_without_workers_is_set_and_shown(db: Connection, database: str) -> None:
    done = await outbox(database, "mode", "poll")
    assert (done.code, done.out) == (0, "no worker is running\n")
    assert await db.fetchval("select value #>> '{}' from outbox.control where name = 'mode'") == "poll"
    assert (await outbox(database, "mode", "default")).code == 0
    assert await db.fetchval("select count(*) from outbox.control") == 0


async def test_mode_waits_until_running_workers_have_switched_and_shows_them(database: str) -> None:
    async with running(database, worker_name="alice") as relay:
        await relay.log.wait_for(SourceReady)
        done = await outbox(database, "mode", "poll", COLUMNS="160")
        assert (done.code, done.err) == (0, "")
        assert ["alice", "poll", "outbox", "mode", "polling", "only"] == done.out.splitlines()[-1].split()
        assert (await outbox(database, "mode", "listen")).code == 0
        done = await outbox(database, "mode", "default", COLUMNS="160")
        assert (done.code, done.err) == (0, "")
        assert ["alice", "auto", "OUTBOX_MODE"] == done.out.splitlines()[-1].split()[:3]


async def test_mode_names_workers_that_do_not_answer(db: Connection, database: str) -> None:
    await db.execute("insert into outbox.worker (name, version, state) values ('frozen', '1', 'running')")
    done = await outbox(database, "mode", "poll")
    assert (done.code, done.err) == (1, "outbox: the switch is set, but no answer yet from frozen\n")


async def test_realtime_is_refused_where_no_worker_could_use_it(database: str, db: Connection) -> None:
    async with running(database, mode="poll") as worker:
        await eventually(lambda: db.fetchval("select detail ? 'configured' from outbox.worker"), bool)
        done = await outbox(database, "mode", "realtime")
        assert done.code == 2
        assert "no running worker can use Realtime: set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY" in done.fault
        assert not await db.fetchval("select exists (select from outbox.control where name = 'mode')")
        await worker.stop()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("enqueue t", "outbox: 1 messages are enqueued, and their ids cannot be printed: No space left on device"),
        ("mode", "outbox: output cannot be written: No space left on device; what was done is done"),
    ],
)
async def test_output_that_nothing_takes_is_one_line(database: str, arguments: str, said: str) -> None:
    done = await in_shell(database, f"{arguments} >/dev/full")
    assert (done.code, done.err.splitlines()[0]) == (1, said)
    assert "Traceback" not in done.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
async def test_streams_that_are_closed_disturb_nothing(database: str, closed: str) -> None:
    assert (await in_shell(database, f"enqueue t {closed}")).code == 0
    assert (await counts(database))["message"] == 1


async def in_shell(dsn: str, arguments: str) -> Done:
    """Run the command as a shell does, which may lead or close its streams."""
    line = f"exec {sys.executable} -m outbox {arguments}"
    process = await anyio.run_process(["/bin/sh", "-c", line], check=False, env={**os.environ, "DATABASE_URL": dsn})
    return Done(process.returncode, process.stdout.decode(), process.stderr.decode())


async def test_mode_that_is_none_is_one_line(database: str) -> None:
    done = await outbox(database, "mode", "loud")
    assert (done.code, done.fault) == (2, "mode is 'loud': use auto, listen, realtime, poll or default")


@pytest.mark.parametrize(
    ("environment", "faults"),
    [
        (
            {"OUTBOX_MODE": "realtime"},
            [
                "SUPABASE_URL is not set: Supabase Realtime needs it",
                "SUPABASE_SERVICE_ROLE_KEY is not set: Supabase Realtime needs it",
            ],
        ),
        (
            {"SUPABASE_URL": "x.supabase.co", "OUTBOX_LEASE_S": "10"},
            [
                "OUTBOX_LEASE_S is 10, but a delivery may take OUTBOX_DELIVER_TIMEOUT_S (10): make the lease at least 14",
                "SUPABASE_SERVICE_ROLE_KEY is not set: Supabase Realtime needs it",
                "SUPABASE_URL is 'x.supabase.co': write it as https://<project>.supabase.co",
            ],
        ),
    ],
)
async def test_settings_of_realtime_that_are_missing_or_malformed_are_named_at_once(
    database: str, environment: dict[str, str], faults: list[str]
) -> None:
    done = await outbox(database, "run", OUTBOX_LOG_FORMAT="text", **environment)
    assert (done.code, done.err.splitlines()) == (2, [f"outbox: {fault}" for fault in faults])
