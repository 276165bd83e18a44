"""`outbox config`: what is in effect, where it comes from, and never a secret; all faults at once, the sink's too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.test_cli import outbox

CANARY = "hunter2"
OTHER_SINK = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}


def secrets(directory: Path) -> dict[str, str]:
    """Every place where a secret may stand, with one in it."""
    (directory / "key").write_text(f"{CANARY}-key")
    (directory / "profile.toml").write_text(
        f'[profile.default]\naddress = "of-profile:7233"\nnamespace = "of-profile"\napi_key = "{CANARY}-of-profile"\n'
    )
    return {
        "HOME": str(directory),
        "DATABASE_URL": f"postgresql://app:{CANARY}@db:6543/shop?sslpassword={CANARY}&token={CANARY}",
        "OUTBOX_LISTEN_URL": f"postgresql://:{CANARY}@direct",
        "DB_PASSWORD": CANARY,
        "DB_SSL": "true",
        "PGPASSWORD": CANARY,
        "SUPABASE_URL": f"https://me:{CANARY}@x.supabase.co",
        "SUPABASE_SERVICE_ROLE_KEY_FILE": str(directory / "key"),
        "OUTBOX_REALTIME_TOKEN_COMMAND": f"curl -H 'authorization: {CANARY}' http://tokens",
        "TEMPORAL_CONFIG_FILE": str(directory / "profile.toml"),
        "TEMPORAL_ADDRESS": "temporal:7233",
        "TEMPORAL_TLS_CLIENT_CERT_DATA": "a certificate",
        "TEMPORAL_TLS_CLIENT_KEY_DATA": CANARY,
        "TEMPORAL_GRPC_META_AUTHORIZATION": f"Bearer {CANARY}",
        "OUTBOX_CONCURRENCY": "7",
    }


def found(out: str) -> dict[str, dict[str, tuple[Any, str]]]:
    groups = json.loads(out)["settings"]
    return {title: {s["name"]: (s["value"], s["origin"]) for s in settings} for title, settings in groups.items()}


async def test_every_setting_is_shown_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    done = await outbox(None, "config", "--json", **secrets(tmp_path))
    assert (done.code, done.err) == (0, "")
    assert CANARY not in done.out
    groups = found(done.out)
    database, worker, temporal = groups["database"], groups["worker"], groups["outbox_temporal.sink"]
    assert database["host"] == ("db", "environment variable DATABASE_URL")
    assert database["password"] == ("********", "environment variable DATABASE_URL")
    assert database["sslmode"] == ("verify-full", "environment variable DB_SSL")
    assert groups["listen"]["host"] == ("direct", "environment variable OUTBOX_LISTEN_URL")
    assert groups["listen"]["user"] == ("app", "environment variable DATABASE_URL")
    assert groups["listen"]["sslmode"] == ("verify-full", "default for another machine")
    assert worker["DATABASE_URL"] == (
        "postgresql://app:********@db:6543/shop?********",
        "environment variable DATABASE_URL",
    )
    assert worker["SUPABASE_SERVICE_ROLE_KEY"] == (
        "********",
        f"file {tmp_path}/key, named by SUPABASE_SERVICE_ROLE_KEY_FILE",
    )
    assert worker["OUTBOX_CONCURRENCY"] == (7, "environment variable OUTBOX_CONCURRENCY")
    assert worker["OUTBOX_LEASE_S"] == (60, "default")
    assert temporal["TEMPORAL_ADDRESS"] == ("temporal:7233", "environment variable TEMPORAL_ADDRESS")
    assert temporal["TEMPORAL_NAMESPACE"] == ("of-profile", f"profile default in {tmp_path}/profile.toml")
    assert temporal["TEMPORAL_API_KEY"] == ("********", f"profile default in {tmp_path}/profile.toml")
    assert temporal["TEMPORAL_GRPC_META_AUTHORIZATION"][0] == "********"
    assert temporal["OUTBOX_TEMPORAL_COMPRESSION"] == ("auto", "default")


async def test_people_see_the_same_and_what_is_doubtful(tmp_path: Path) -> None:
    done = await outbox(None, "config", **secrets(tmp_path), PGSSLMODE="require", DB_SSLMODE="verify-full")
    assert done.code == 0
    assert CANARY not in done.out + done.err
    [line] = [line for line in done.out.splitlines() if "OUTBOX_CONCURRENCY" in line]
    assert line.split() == ["OUTBOX_CONCURRENCY", "7", "environment", "variable", "OUTBOX_CONCURRENCY"]
    assert "doubtful: DATABASE_URL: token means nothing to the worker and is passed over" in done.out
    assert "doubtful: PGSSLMODE asks for sslmode=require towards direct" in done.out


async def test_faults_are_reported_all_at_once_after_what_is_in_effect(tmp_path: Path) -> None:
    wrong = {
        "DATABASE_URL": f"postgresql://app:{CANARY}@db/shop",
        "DB_HOST": "other",
        "OUTBOX_LEASE_S": "0",
        "OUTBOX_SINK": "no.such:sink",
        "OUTBOX_TEMPORAL_COMPRESSION": "zip",
        "OUTBOX_ROUTES": str(tmp_path / "OUTBOX_ROUTES.toml"),
        "ALGA_DB_PASSWORD": CANARY,
        "TEMPORAL_CONFIG_FILE": str(tmp_path / "none.toml"),
    }
    done = await outbox(None, "config", HOME=str(tmp_path), **wrong)
    assert done.code == 2
    reported = done.err.splitlines()
    assert [name for name in wrong if not any(name in line for line in reported)] == []
    assert len(reported) == len(wrong) - 1  # DATABASE_URL and DB_HOST disagree
    assert CANARY not in done.out + done.err
    assert "OUTBOX_CONCURRENCY" in done.out


async def test_worker_reports_the_sinks_faults_together_with_its_own() -> None:
    wrong = {"OUTBOX_LEASE_S": "0", "OUTBOX_TEMPORAL_COMPRESSION": "zip"}
    done = await outbox("postgresql://u@127.0.0.1:1/x", "run", **wrong)
    assert done.code == 2
    assert [name for name in wrong if name not in done.err] == []
    other = await outbox("postgresql://u@127.0.0.1:1/x", "run", **wrong, **OTHER_SINK)
    assert (other.code, len(other.err.splitlines())) == (2, 1)


async def test_the_workflow_workers_settings_are_shown_and_judged_and_no_password_is_seen() -> None:
    good = {"DATABASE_URL": "postgresql://localhost/x", "OUTBOX_WORKFLOWS_MAIL": f"smtp://user:{CANARY}@mail:587"}
    done = await outbox(None, "config", "--json", **good)
    assert (done.code, done.err) == (0, "")
    assert CANARY not in done.out
    own = found(done.out)["outbox_workflows.worker"]
    assert own["OUTBOX_WORKFLOWS_MAIL"] == ("********", "environment variable OUTBOX_WORKFLOWS_MAIL")
    assert own["OUTBOX_WORKFLOWS_CONCURRENT_ACTIVITIES"] == (50, "default")
    bad = {"OUTBOX_WORKFLOWS_FAMILIES": "billing", "OUTBOX_WORKFLOWS_MAIL": f"imap://{CANARY}@x"}
    done = await outbox(None, "config", **good | bad)
    assert done.code == 2
    assert "OUTBOX_WORKFLOWS_FAMILIES is 'billing': choose from" in done.err
    assert "OUTBOX_WORKFLOWS_MAIL" in done.err
    assert CANARY not in done.out + done.err
