"""A home-made workflow engine's tables, as much of them as an import needs, and imports of them in the test's own loop."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from anyio import to_thread

from outbox.cli.session import with_store
from outbox_temporal.importing import command
from outbox_temporal.importing.journal import Books
from outbox_temporal.importing.mapping import load
from outbox_temporal.importing.report import ImportReport
from outbox_temporal.importing.rollback import Started
from tests.support.commands import Command
from tests.support.running import fetch, settings
from tests.support.sql import connected

TABLES = """
    create schema engine;
    create table engine."WorkflowTemplate" (id text primary key, code text not null);
    create table engine."WorkflowInstance" (
        id text primary key, "templateId" text not null references engine."WorkflowTemplate", "organizationId" text,
        "initiatorId" text not null, status text not null, context text, amount numeric, "createdAt" timestamptz not null default now());
    create table engine."WorkflowStepInstance" (
        id bigint generated always as identity primary key, "instanceId" text not null references engine."WorkflowInstance",
        "approverId" text not null, status text not null, "dueAt" timestamptz);
    insert into engine."WorkflowTemplate" values ('t1', 'SIMPLE'), ('t2', 'ESCALATING');
"""
INSTANCES = """
    insert into engine."WorkflowInstance" (id, "templateId", "organizationId", "initiatorId", status, context, amount)
    select 'wi-' || lpad(n::text, 6, '0'), 't' || 1 + n % 2, 'org-' || n % 7, 'user-' || n % 50,
           (array['PENDING', 'IN_PROGRESS'])[1 + n % 2], format('{"requestId": "r-%s", "total": 1.50}', n), n / 100.0
    from generate_series(1, $1::int) n
"""
STEPS = """
    insert into engine."WorkflowStepInstance" ("instanceId", "approverId", status)
    select id, 'boss-' || right(id, 1), 'PENDING' from engine."WorkflowInstance"
"""
MAPPING = """\
name = "old-engine"

[source]
table = 'engine."WorkflowInstance"'
identity = "id"
json = ["context"]

[start]
workflow = "Approval"
workflow_id = "approval-{id}"
task_queue = "unserved"
"""


async def build(dsn: str, instances: int) -> None:
    """Make the engine's tables, with so many instances that are active."""
    async with connected(dsn) as connection:
        await connection.execute(TABLES)
        await connection.execute(INSTANCES, instances)
        await connection.execute(STEPS)


def written(directory: Path, mapping: str = MAPPING, **files: str) -> Path:
    """Write a mapping, and files beside it by their stems, with the ending .sql."""
    for stem, text in files.items():
        (directory / f"{stem}.sql").write_text(text, encoding="utf-8")
    path = directory / "old.toml"
    path.write_text(mapping, encoding="utf-8")
    return path


async def moved(
    dsn: str, path: Path, *, source: str | None = None, dry_run: bool = False, batch: int = 500, **chosen: Any
) -> ImportReport:
    """Run an import, or its dry run."""
    work = partial(command._move, dsn=source or dsn, foreign=source is not None, dry_run=dry_run, batch=batch)
    return await _run(dsn, path, work, **chosen)


async def verified(dsn: str, path: Path) -> ImportReport:
    """Compare an import with Temporal."""
    return await _run(dsn, path, command._verify)


async def rolled_back(dsn: str, path: Path, *, started: Started = "list", dry_run: bool = False) -> ImportReport:
    """Roll an import back."""
    return await _run(dsn, path, partial(command._roll_back, started=started, dry_run=dry_run, yes=True))


async def _run(dsn: str, path: Path, work: Any, **chosen: Any) -> ImportReport:
    mapping = load(path)
    report = ImportReport.of(mapping, "test")
    try:
        await with_store(settings(dsn, **chosen), Books, partial(work, mapping, report))
    except ExceptionGroup as group:  # as the command line does
        raise group.exceptions[0] from group
    return report


def start(
    dsn: str, *arguments: object, cwd: Path, stdin: int = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[str]:
    """`outbox import` as a process of its own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "DATABASE_", "PG"))}
    ours["PYTHONPATH"] = str(Path(__file__).parents[3])
    return Command(
        ["import", *arguments],
        cwd=cwd,
        env=ours | {"DATABASE_URL": dsn} | environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ended(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process."""
    out, err = await to_thread.run_sync(command.communicate)
    assert "Traceback" not in err, err
    return command.returncode, out, err


def reasons(report: ImportReport) -> dict[str, str]:
    """What is said of each row that a person should look at."""
    return {finding.identity: f"{finding.what}: {finding.detail}" for finding in report.findings}


async def messages(dsn: str) -> list[dict[str, Any]]:
    """The messages in the order in which they were enqueued, JSON decoded, payloads as text too."""
    rows = await fetch(
        dsn, "select seq, topic, tenant, key, priority, target, payload from outbox.message order by seq"
    )
    return [
        dict(row)
        | {"target": orjson.loads(row["target"]), "payload": orjson.loads(row["payload"]), "text": row["payload"]}
        for row in rows
    ]


TWICE = """
    select count(*) as messages, count(distinct target ->> 'workflow_id') as workflows,
           (select count(*) from outbox.imported) as noted,
           (select count(*) from outbox.imported join outbox.message using (message_id)) as joined
    from outbox.message
"""


async def exactly_once(dsn: str, count: int) -> bool:
    """Whether so many rows have one message each, noted as such."""
    [row] = await fetch(dsn, TWICE)
    return set(row.values()) == {count}
