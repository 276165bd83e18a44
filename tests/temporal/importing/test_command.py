"""`outbox import` as people call it: exit codes, what is shown, and the report."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import orjson
import pytest
from anyio import to_thread

from outbox_temporal.importing.view import SHOWN
from tests.support.running import counts, fetch
from tests.support.sql import connected
from tests.temporal.importing.engine import MAPPING, build, ended, exactly_once, moved, start, written

pytestmark = pytest.mark.timeout(180)  # processes, and on a busy machine each takes its time


async def test_what_is_refused_is_shown_first_and_written_whole(database: str, tmp_path: Path) -> None:
    await build(database, 60)
    async with connected(database) as connection:
        await connection.execute("""update engine."WorkflowInstance" set context = '{' where id > 'wi-000030'""")
    code, out, err = await ended(start(database, written(tmp_path), "--dry-run", cwd=tmp_path))
    assert code == 1, err
    assert "row wi-000001 would become\n{" in out
    assert out.count("\nrefused: row 'wi-") == SHOWN
    assert "… and 10 more, all of them in old-engine.report.json\n" in out
    assert [line.split(maxsplit=1) for line in out.splitlines()[-4:]] == [
        ["60", "rows"],
        ["30", "would be moved"],
        ["0", "already there"],
        ["30", "refused"],
    ]
    report = orjson.loads((tmp_path / "old-engine.report.json").read_bytes())
    assert (report["mode"], report["rows"], report["done"], len(report["samples"])) == ("dry run", 60, 60, 3)
    assert [finding["identity"] for finding in report["findings"]] == [f"wi-{n:06}" for n in range(31, 61)]
    assert report["findings"][0]["detail"].startswith("context is not JSON: ")


async def test_an_import_from_elsewhere_writes_its_report_and_exits_0(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    await build(empty_database, 10)
    path = written(tmp_path)
    for flags, environment in ((("--source-url", empty_database), {}), ((), {"IMPORT_SOURCE_URL": empty_database})):
        code, _, _ = await ended(start(database, path, "--report", "r.json", *flags, cwd=tmp_path, **environment))
        assert code == 0
    assert await exactly_once(database, 10)
    report = orjson.loads((tmp_path / "r.json").read_bytes())
    assert (report["import"], report["mode"]) == ("old-engine", "import")
    assert report["counts"] == {"moved": 0, "already there": 10, "refused": 0}


async def test_what_no_worker_with_these_settings_may_start_is_a_warning(database: str, tmp_path: Path) -> None:
    await build(database, 10)
    path = written(tmp_path, MAPPING.replace("[start]", '[start]\nnamespace = "elsewhere"'))
    how = {"OUTBOX_TEMPORAL_ALLOWED_WORKFLOWS": "Simple*", "TEMPORAL_NAMESPACE": "elsewhere"}
    code, _, err = await ended(start(database, path, "--dry-run", cwd=tmp_path))
    assert (code, err.count("warning: ")) == (0, 1)
    assert (
        "outbox: warning: namespace 'elsewhere' is not allowed to this worker: add it to "
        "OUTBOX_TEMPORAL_ALLOWED_NAMESPACES, or correct the message; with these settings its messages become dead letters\n"
    ) in err
    code, _, err = await ended(start(database, path, "--report", "r.json", cwd=tmp_path, **how))
    assert (code, "'elsewhere'" in err) == (0, False)
    [warning] = orjson.loads((tmp_path / "r.json").read_bytes())["warnings"]
    assert "workflow type 'Approval' is not allowed to this worker" in warning
    assert warning in err
    assert (await counts(database))["message"] == 10


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["absent.toml"], 2, "absent.toml cannot be read: No such file or directory"),
        (
            ["old.toml", "--verify", "--dry-run"],
            2,
            "--verify only reads: leave out --dry-run and --rollback",
        ),
        (["old.toml", "--rollback", "--started", "kill"], 2, "--started is 'kill': use list, cancel, terminate"),
        (
            ["old.toml", "--source-url", "postgresql://a:b@h:x/y"],
            2,
            "--source-url cannot be used: the port is not a number",
        ),
        (["old.toml", "--verify"], 1, "nothing has been imported as 'old-engine'"),
        (["old.toml", "--rollback"], 1, "nothing has been imported as 'old-engine'"),
        (["old.toml", "--report", "absent/r.json"], 1, "the report absent/r.json cannot be written: No such file"),
    ],
)
async def test_a_mistake_is_one_line(database: str, tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    await build(database, 0)
    written(tmp_path)
    found, _, err = await ended(start(database, *arguments, cwd=tmp_path))
    assert (found, err.count("\n")) == (code, 1)
    assert err.startswith(f"outbox: {says}")


async def test_faults_of_a_mapping_are_a_line_each_and_exit_code_2(tmp_path: Path) -> None:
    path = written(tmp_path, "name = 7\n" + MAPPING.split("\n", 2)[2].replace("workflow_id", "workflowid"))
    code, out, err = await ended(start("postgresql://postgres@127.0.0.1:1/x", path.name, cwd=tmp_path))
    assert (code, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == ["old.toml:1", "old.toml:7", "old.toml:9"]


async def test_a_database_without_schema_is_exit_code_3(empty_database: str, tmp_path: Path) -> None:
    code, _, err = await ended(start(empty_database, written(tmp_path), cwd=tmp_path))
    assert (code, err) == (3, "outbox: the database has no schema 'outbox': run `outbox migrate`\n")


async def test_a_rollback_asks_first_and_does_nothing_without_consent(database: str, tmp_path: Path) -> None:
    await build(database, 5)
    path = written(tmp_path)
    await moved(database, path)
    code, _, err = await ended(start(database, path, "--rollback", cwd=tmp_path))
    assert (code, err) == (
        2,
        "outbox: nothing was done: use --yes to roll back without being asked, or --dry-run to look\n",
    )
    terminal, inside = pty.openpty()
    for answer, expected, left in (("n", 1, 5), ("y", 0, 0)):
        command = await to_thread.run_sync(lambda: start(database, path, "--rollback", cwd=tmp_path, stdin=inside))
        os.write(terminal, f"{answer}\n".encode())
        code, out, err = await ended(command)
        assert (code, (await counts(database))["message"]) == (expected, left), err
        assert "Roll back 5 rows of old-engine? [y/N]" in err
    os.close(terminal)
    os.close(inside)
    assert await fetch(database, "select from outbox.import") == []


async def test_a_rollback_that_broke_off_keeps_imports_away_until_it_has_ended(database: str, tmp_path: Path) -> None:
    await build(database, 5)
    path = written(tmp_path)
    await moved(database, path)
    await fetch(database, "update outbox.import set rolling_back = true")
    code, _, err = await ended(start(database, path, cwd=tmp_path))
    assert (code, err.count("\n")) == (1, 1)
    assert "being rolled back, or that broke off: end it with `outbox import" in err
    assert (await ended(start(database, path, "--rollback", "--yes", cwd=tmp_path)))[0] == 0
    assert (await ended(start(database, path, cwd=tmp_path)))[0] == 0
    assert await exactly_once(database, 5)
