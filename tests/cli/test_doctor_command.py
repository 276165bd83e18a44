"""The command `outbox doctor`: what it prints, its JSON, its exit code, and never a secret or a traceback."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_cli import NO_SERVER, outbox
from tests.cli.test_settings_report import CANARY, OTHER_SINK, secrets
from tests.support.running import fetch

TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
"""Has the output made as for a terminal of 80 columns, without its colours."""


async def test_healthy_installation_is_safe_to_start(database: str) -> None:
    done = await outbox(database, "doctor", **OTHER_SINK)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == [
        "settings",
        "database",
        "schema",
        "housekeeping",
        "wake-ups",
        "sink tests.support.sinks:null_sink",
        "safe to start: 0 faults, 1 warning, 0 not tried",
    ]
    not_good = [line for line in lines if line.startswith(" ") and not line.startswith("  good")]
    assert "fsync and full_page_writes off" in not_good[0].replace(
        "full_page_writes and fsync", "fsync and full_page_writes"
    )
    assert [line.strip() for line in not_good[1:]] == [
        "alter system reset fsync;",
        "alter system reset full_page_writes;",
        "select pg_reload_conf();",
    ]


async def test_warnings_are_safe_and_have_their_cure_on_a_line_of_its_own(database: str) -> None:
    await fetch(database, "alter table outbox.message disable trigger wakeup")
    done = await outbox(database, "doctor", **OTHER_SINK, **TERMINAL)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "alter table outbox.message enable trigger wakeup;" in [line.strip() for line in lines]
    assert lines[-1] == "safe to start: 0 faults, 2 warnings, 0 not tried"
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


async def test_faults_are_not_safe_and_dependent_checks_are_reported_together() -> None:
    done = await outbox(NO_SERVER, "doctor", **OTHER_SINK, **TERMINAL)
    assert (done.code, done.err) == (1, "")
    assert "is DATABASE_URL right, and PostgreSQL running?" in done.out
    assert done.out.splitlines()[-1].startswith("not safe to start: 1 fault, 0 warnings, ")
    assert (
        " ".join(done.out.split()).count("there is no way into PostgreSQL") == 4
    )  # once in each part that stands on it


async def test_json_is_one_document_with_the_verdict(database: str) -> None:
    await fetch(database, "delete from outbox.migration where version = 9")
    done = await outbox(database, "doctor", "--json", **OTHER_SINK)
    assert (done.code, done.err) == (1, "")
    report = json.loads(done.out)
    assert report.keys() == {"safe", "findings"}
    assert report["safe"] is False
    assert all(finding.keys() == {"what", "grade", "detail", "cure"} for finding in report["findings"])
    [fault] = [finding for finding in report["findings"] if finding["grade"] == "fault"]
    assert (fault["what"], fault["cure"]) == ("schema version", "outbox migrate")
    [listen] = [finding for finding in report["findings"] if finding["what"] == "LISTEN"]
    assert listen["grade"] == "warning"
    assert listen["detail"].startswith("not tried: because outbox is older than this version")


async def test_retired_variables_are_reported_and_are_a_fault_where_they_leave_a_gap(database: str) -> None:
    retired = {"ALGA_DB_PASSWORD": CANARY, "ALGA_DB_PORT": "5433"}
    done = await outbox(
        None, "doctor", "--json", DB_HOST="127.0.0.1", DB_USER="u", DB_PORT="1", **retired, **OTHER_SINK
    )
    found = {f["detail"]: f for f in json.loads(done.out)["findings"] if f["what"] == "retired variables"}
    gap, harmless = found["ALGA_DB_PASSWORD is retired and not read"], found["ALGA_DB_PORT is retired and not read"]
    assert (gap["grade"], gap["cure"]) == ("fault", "set DB_PASSWORD instead, and unset it")
    assert (harmless["grade"], harmless["cure"]) == ("warning", "set DB_PORT instead, and unset it")
    assert CANARY not in done.out


async def test_settings_that_cannot_be_used_or_should_not_be_are_findings(database: str) -> None:
    wrong = {"OUTBOX_LEASE_S": "0", "SUPABASE_URL": "http://x.supabase.co"}
    done = await outbox(f"{database}?fallback=none", "doctor", "--json", **wrong, OUTBOX_SINK="no.such:sink")
    assert (done.code, done.err) == (1, "")
    findings = json.loads(done.out)["findings"]
    faults = [f["detail"] for f in findings if (f["what"], f["grade"]) == ("settings", "fault")]
    for name in ("OUTBOX_LEASE_S", "SUPABASE_SERVICE_ROLE_KEY", "OUTBOX_SINK"):
        assert any(name in fault for fault in faults), faults
    [doubt] = [f for f in findings if (f["what"], f["grade"]) == ("settings", "warning")]
    assert "fallback means nothing" in doubt["detail"]
    assert {f["grade"] for f in findings if f["what"] == "schema version"} == {"good"}  # the rest has its turn


async def test_no_secret_is_ever_printed(tmp_path: Path) -> None:
    hidden = secrets(tmp_path) | {"TEMPORAL_ADDRESS": "127.0.0.1:1", "SUPABASE_URL": f"http://me:{CANARY}@127.0.0.1:1"}
    hidden |= {"DATABASE_URL": f"postgresql://app:{CANARY}@127.0.0.1:1/shop", "OUTBOX_MODE": "realtime"}
    hidden |= {"OUTBOX_REALTIME_TOKEN_COMMAND": f"false {CANARY}"}
    for changed in ({}, {"OUTBOX_REALTIME_TOKEN_COMMAND": ""}):  # the second comes as far as Supabase's address
        done = await outbox(None, "doctor", "--json", **(hidden | changed))
        assert (done.code, done.err) == (1, "")
        assert "Traceback" not in done.out
        assert CANARY not in done.out
