"""The example in the documentation does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from outbox_temporal.importing.command import import_rows
from outbox_temporal.importing.mapping import Envelope, Input, SourceTable
from outbox_temporal.importing.verify import _UNDELIVERED
from tests.support.running import fetch
from tests.temporal.importing.engine import build, messages, moved, written

DOCUMENT = (Path(__file__).parents[3] / "docs" / "importing.md").read_text(encoding="utf-8")


async def test_the_example_moves_the_engines_active_workflows(database: str, tmp_path: Path) -> None:
    [query] = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)
    [mapping] = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    await build(database, 20)
    await fetch(database, """update engine."WorkflowInstance" set status = 'DONE' where id > 'wi-000010'""")
    report = await moved(database, written(tmp_path, mapping, active=query))
    assert (report.counts, report.findings) == ({"moved": 10, "already there": 0, "refused": 0}, [])
    first, second, *_ = await messages(database)
    assert (first["topic"], first["tenant"]) == ("import.old-engine", "org-1")
    assert first["target"] == {
        "operation": "start_workflow",
        "workflow": "EscalatingApproval",
        "workflow_id": "approval-wi-000001",
        "task_queue": "approvals",
        "id_reuse_policy": "allow_duplicate_failed_only",
        "on_duplicate": "reject",
        "memo": {"imported_from": "old-engine", "organization": "org-1"},
    }
    requested = first["payload"].pop("requestedAt")
    assert re.match(r"\d{4}-\d\d-\d\dT", requested)
    assert first["payload"] == {
        "id": "wi-000001",
        "initiator": "user-1",
        "approver": "boss-1",
        "requestId": "r-1",
        "dueAt": None,
        "context": {"requestId": "r-1", "total": 1.5},
        "resumed": True,
    }
    assert second["target"]["workflow"] == "SimpleApproval"


def test_every_field_flag_and_finding_is_documented() -> None:
    import_command = typer.Typer(add_completion=False)
    import_command.command()(import_rows)
    flags = {option for parameter in typer.main.get_command(import_command).params for option in parameter.opts}
    fields = {
        field.alias or name for model in (SourceTable, Envelope, Input) for name, field in model.model_fields.items()
    }
    findings = {*_UNDELIVERED.values(), "no workflow", "another workflow type", "workflow of other origin"}
    for word in (
        fields | findings | (flags - {"mapping", "-y", "--help"}) | {"in flight", "workflows left", "tried before"}
    ):
        assert f"`{word}`" in DOCUMENT, word
