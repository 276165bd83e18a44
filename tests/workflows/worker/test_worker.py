"""`outbox workflows run` as a process: it waits, reports, drains, and refuses faulty settings in one line."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import anyio
import pytest
from anyio import to_thread
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client

from outbox_workflows.worker.logs import context
from tests.cli.test_cli import NO_SERVER, outbox
from tests.postgres.test_roles import login
from tests.repo.deploy.metrics import SDK
from tests.support.eventually import eventually
from tests.support.probing import free_port
from tests.support.processes import workflow_worker_process
from tests.support.running import fetch
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(120)


async def test_it_waits_for_servers_that_do_not_answer_and_ends_on_a_signal(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    for number, (name, away, says) in enumerate(
        (
            ("database", {"DATABASE_URL": NO_SERVER}, "is DATABASE_URL right"),
            ("Temporal", {"TEMPORAL_ADDRESS": "127.0.0.1:1"}, "refused, nothing listens there: check TEMPORAL_ADDRESS"),
            ("Temporal", {"TEMPORAL_NAMESPACE": "nowhere"}, "has no namespace nowhere: create it"),
        )
    ):
        with workflow_worker_process(tmp_path, f"away-{number}", **surroundings | away) as worker:
            [line] = await worker.logged("server does not answer, trying again")
            assert line["server"] == name
            assert says in line["error"]
            assert worker.stop() == 0
            assert not worker.lines("workflow worker started")


async def test_metrics_of_the_sdk_that_rules_and_panels_name_are_served_where_wanted(
    surroundings: dict[str, str], tmp_path: Path, temporal_client: Client, task_queue: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    surroundings["OUTBOX_WORKFLOWS_METRICS_ADDRESS"] = address
    (tmp_path / "dns").touch()  # where the folder of DNS records should be: an activity fails

    async def missing() -> set[str]:
        text = await to_thread.run_sync(lambda: urlopen(f"http://{address}/metrics", timeout=5).read().decode())
        found = {sample.name: sample.labels for f in text_string_to_metric_families(text) for sample in f.samples}
        return {name for name, labels in SDK.items() if not {*labels, "program"} <= found.get(name, {}).keys()}

    with workflow_worker_process(tmp_path, "worker", **surroundings) as worker:
        await worker.logged("workflow worker started")
        await temporal_client.start_workflow("NoSuchType", id=f"unknown-{task_queue}", task_queue=task_queue)
        organization = {"organization_id": str(uuid4()), "tenant_id": str(uuid4()), "stream": task_queue}
        organization |= {"name": "Acme", "subdomain": "acme"}
        for name, argument in ("wrong", {}), ("failing", organization):
            await temporal_client.start_workflow(
                "OrganizationBootstrap", argument, id=f"{name}-{task_queue}", task_queue=task_queue
            )
        assert await eventually(missing, lambda names: not names) == set()
        worker.send(signal.SIGINT)
        assert worker.wait() == 0


async def test_it_is_ready_when_it_works_and_says_what_it_waits_for(
    surroundings: dict[str, str], tmp_path: Path
) -> None:
    surroundings["OUTBOX_HTTP_PORT"] = str(free_port())
    surroundings["OUTBOX_HTTP_HOST"] = "127.0.0.1"
    dsn = surroundings["DATABASE_URL"]

    async def asked(*flags: str) -> tuple[int, str]:
        done = await outbox(dsn, "health", *flags, **surroundings)
        return done.code, done.out

    with workflow_worker_process(tmp_path, "early", **surroundings | {"TEMPORAL_ADDRESS": "127.0.0.1:1"}) as worker:
        await worker.logged("server does not answer, trying again")
        assert await asked("--live") == (0, "live\n")
        assert await asked() == (1, "not ready: worker: starting; temporal: not connected yet\n")
        assert worker.stop() == 0
    with workflow_worker_process(tmp_path, "well", **surroundings) as worker:
        await worker.logged("workflow worker started")
        assert await asked() == (0, "ready\n")
        await fetch(dsn, "insert into app.migration values (9999, 'future', 'x')")
        code, said = await eventually(asked, lambda answer: answer[0] == 1)
        assert "schema 'app' is newer than this version" in said


async def test_a_login_with_the_role_of_tenants_is_all_that_it_needs(
    surroundings: dict[str, str], tmp_path: Path, temporal_client: Client, task_queue: str
) -> None:
    """It owns nothing, and has no role of the outbox's."""
    stream = f"organization-{uuid4()}"
    organization = {"organization_id": str(uuid4()), "tenant_id": str(uuid4()), "stream": stream}
    organization |= {"name": "Acme", "subdomain": "acme", "invitations": ["ada@example.org"]}
    owner = surroundings["DATABASE_URL"]
    async with login(owner, "in role app_tenant") as dsn:
        with workflow_worker_process(tmp_path, "worker", **surroundings | {"DATABASE_URL": dsn}) as worker:
            await worker.logged("workflow worker started")
            with anyio.fail_after(60):
                await temporal_client.execute_workflow(
                    "OrganizationBootstrap", organization, id=f"org-{task_queue}", task_queue=task_queue
                )
            assert worker.stop() == 0
    assert await fetch(owner, "select 1 from outbox.message where key = $1", stream)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("OUTBOX_WORKFLOWS_FAMILIES", "approval,billing", "choose from approval, tenant, organization"),
        ("OUTBOX_WORKFLOWS_CONCURRENT_ACTIVITIES", "0", "greater than or equal to 1"),
        ("OUTBOX_WORKFLOWS_MAIL", "imap://canary:secret@host", "smtp://user:password@host:587"),
        ("OUTBOX_WORKFLOWS_METRICS_ADDRESS", "nowhere", "cannot serve metrics there"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(
    surroundings: dict[str, str], name: str, value: str, fault: str
) -> None:
    dsn = surroundings.pop("DATABASE_URL")
    done = await outbox(dsn, "workflows", "run", **surroundings | {name: value, "LOG_LEVEL": "ERROR"})
    assert done.code == 2
    assert done.fault.startswith(name)
    assert fault in done.fault
    assert "canary" not in done.err


async def test_the_mail_settings_may_be_in_a_file(surroundings: dict[str, str], tmp_path: Path) -> None:
    dsn = surroundings.pop("DATABASE_URL")
    del surroundings["OUTBOX_WORKFLOWS_MAIL"]
    file = tmp_path / "secret"
    file.write_text("imap://canary:secret@host\n", encoding="utf-8")
    done = await outbox(dsn, "workflows", "run", OUTBOX_WORKFLOWS_MAIL_FILE=str(file), **surroundings)
    assert done.code == 2
    assert done.fault.startswith("OUTBOX_WORKFLOWS_MAIL_FILE: ")
    assert "canary" not in done.err
    file.unlink()
    done = await outbox(dsn, "workflows", "run", OUTBOX_WORKFLOWS_MAIL_FILE=str(file), **surroundings)
    assert done.code == 2
    assert done.fault.startswith(f"OUTBOX_WORKFLOWS_MAIL_FILE is {str(file)!r}: ")


async def test_without_its_schema_it_names_the_command(database: str) -> None:
    done = await outbox(database, "workflows", "run", LOG_LEVEL="ERROR")
    assert (done.code, done.fault) == (3, "the database has no schema 'app': run `outbox workflows migrate`")


async def test_the_schema_is_made_listed_and_made_once(database: str) -> None:
    before = await outbox(database, "workflows", "migrate", "--status")
    made = await outbox(database, "workflows", "migrate")
    again = await outbox(database, "workflows", "migrate")
    after = await outbox(database, "workflows", "migrate", "--status")
    assert (before.code, made.code, again.code, after.code) == (3, 0, 0, 0)
    assert "0001_foundation" in made.out
    assert again.out == "schema app is up to date\n"
    assert {line.split()[0] for line in after.out.splitlines()} == {"applied"}


async def test_the_outbox_comes_first(empty_database: str) -> None:
    done = await outbox(empty_database, "workflows", "migrate")
    assert done.code == 3
    assert done.fault == "the database has no schema 'outbox': run `outbox migrate`"


def test_log_lines_carry_the_workflow_and_not_its_arguments() -> None:
    record = logging.makeLogRecord(
        {
            "temporal_workflow": {
                "workflow_id": "w",
                "run_id": "r",
                "workflow_type": "T",
                "attempt": 1,
                "input": "secret",
            },
            "temporal_activity": None,
        }
    )
    assert context(record) == {"workflow_id": "w", "run_id": "r", "workflow_type": "T", "attempt": 1}


async def test_what_the_sdks_core_says_is_a_line_of_our_log(surroundings: dict[str, str], tmp_path: Path) -> None:
    async with tcp_proxy(f"tcp://{surroundings['TEMPORAL_ADDRESS']}") as proxy:
        surroundings["TEMPORAL_ADDRESS"] = f"{proxy.host}:{proxy.port}"
        with workflow_worker_process(tmp_path, "worker", **surroundings) as worker:
            await worker.logged("workflow worker started")
            await proxy.refuse()

            async def said_by_core() -> list[str]:
                return [line for line in worker.log.read_text().splitlines() if "sdk_core" in line]

            lines = await eventually(said_by_core, lambda found: len(found) > 0, timeout_s=60)
            assert json.loads(lines[0])["level"] in ("WARNING", "ERROR")
