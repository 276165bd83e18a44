"""An import against a real Temporal: each row one workflow; what is not in order is found; a rollback takes it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Worker

from outbox.model.errors import OutboxError
from outbox_temporal.importing.journal import Moved
from outbox_temporal.importing.rollback import Started, verdict
from outbox_temporal.importing.temporal_lookup import Seen
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink import temporal_sink
from tests.support.eventually import eventually
from tests.support.running import Running, counts, fetch, running
from tests.support.sql import connected
from tests.temporal.definitions import Collects
from tests.temporal.importing.engine import MAPPING, build, moved, reasons, rolled_back, verified, written

pytestmark = pytest.mark.timeout(300)
ROWS = 200


@pytest.fixture
def name() -> str:
    """An import of this test's own: the server is shared."""
    return f"old-{uuid4().hex[:12]}"


@pytest.fixture
def path(name: str, tmp_path: Path, temporal_client: Client, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_client.service_client.config.target_host)
    return written(tmp_path, of(name))


def of(name: str, more: str = "") -> str:
    """The mapping of an import, with workflow ids that are its own."""
    text = MAPPING.replace("old-engine", name).replace("approval-", f"{name}-")
    return f"{text}id_reuse_policy = 'allow_duplicate_failed_only'\n{more}"


@asynccontextmanager
async def delivering(database: str) -> AsyncIterator[Running]:
    """A worker that delivers to Temporal."""
    async with running(database, factory=temporal_sink) as worker:
        yield worker


async def deliver(database: str) -> None:
    """Have a worker deliver all that there is."""
    async with delivering(database), connected(database) as connection:
        left = "select count(*) from outbox.message"
        await eventually(lambda: connection.fetchval(left), lambda number: number == 0, timeout_s=120)


async def statuses(client: Client, name: str, numbers: list[int]) -> list[WorkflowExecutionStatus | None]:
    """How the workflows of these rows stand."""
    handles = [client.get_workflow_handle(f"{name}-wi-{number:06}") for number in numbers]
    return [(await handle.describe()).status for handle in handles]


@pytest.mark.slow("starts hundreds of workflows")
async def test_hundreds_of_rows_have_exactly_one_workflow_each_with_its_arguments(
    database: str, path: Path, name: str, temporal_client: Client
) -> None:
    await build(database, ROWS)
    queue = f"queue-{name}"
    written(
        path.parent,
        of(name).replace('"unserved"', f'"{queue}"').replace('"Approval"', '"Collects"')
        + "[input]\ncolumn = 'initiatorId'\n",
    )
    await moved(database, path)
    report = await verified(database, path)
    assert report.counts == {"waiting in the outbox": ROWS}
    await deliver(database)
    assert (await moved(database, path)).counts["already there"] == ROWS
    report = await verified(database, path)
    assert (report.counts, report.findings) == ({"running": ROWS}, [])

    async def listed() -> list[str]:
        query = f'WorkflowId STARTS_WITH "{name}-"'
        return [execution.id async for execution in temporal_client.list_workflows(query, page_size=1000)]

    found = await eventually(listed, lambda ids: len(ids) >= ROWS)
    assert len(found) == len(set(found)) == ROWS
    async with serving(Worker(temporal_client, task_queue=queue, workflows=[Collects])):
        handle = temporal_client.get_workflow_handle(f"{name}-wi-000042")
        await handle.signal("add", "stop")
        assert await handle.result() == ["user-42", "stop"]
    assert (await verified(database, path)).counts == {"running": ROWS - 1, "completed": 1}


async def test_verify_finds_every_planted_fault(database: str, path: Path, name: str, temporal_client: Client) -> None:
    await build(database, 9)
    await temporal_client.start_workflow("Approval", id=f"{name}-wi-000002", task_queue="unserved")  # of other origin
    await moved(database, path)
    ids = {row["identity"]: row["message_id"] for row in await fetch(database, "select * from outbox.imported")}
    async with connected(database) as connection:
        await connection.execute("select outbox.cancel($1)", ids["wi-000003"])
        await connection.execute(
            "update outbox.message set due_at = now() + interval '1 hour' where message_id = $1", ids["wi-000004"]
        )
        await connection.execute(
            """update outbox.message set target = (target::jsonb || '{"search_attributes": {"NobodyKnowsThis": 1}}')::json
               where message_id = $1""",
            ids["wi-000005"],
        )
        async with delivering(database):
            await eventually(lambda: connection.fetchval("select count(*) from outbox.message"), lambda left: left == 1)
        await connection.execute(
            "delete from outbox.history where message_id = any ($1)", [ids["wi-000006"], ids["wi-000007"]]
        )
        await connection.execute("update outbox.imported set workflow = 'Other' where identity = 'wi-000007'")
        await connection.execute(
            "update outbox.imported set workflow_id = workflow_id || '-absent' where identity = 'wi-000008'"
        )
        # A workflow of the right id and type that another message has started, with accepting duplicates.
        await connection.execute("update outbox.imported set message_id = $1 where identity = 'wi-000009'", uuid4())
    report = await verified(database, path)
    assert report.counts == {
        "running": 2,
        "dead letter": 2,
        "cancelled": 1,
        "waiting in the outbox": 1,
        "another workflow type": 1,
        "no workflow": 1,
        "workflow of other origin": 1,
    }
    said = reasons(report)
    assert "belongs to another start" in said["wi-000002"]
    assert said["wi-000003"].startswith("cancelled: message ")
    assert said["wi-000004"].startswith("waiting in the outbox: ")
    assert "NobodyKnowsThis" in said["wi-000005"]
    assert said["wi-000007"] == "another workflow type: it is a Approval, and should be a Other"
    assert said["wi-000008"].startswith("no workflow: Temporal has none with this id")
    assert said["wi-000009"].startswith("workflow of other origin: ")
    assert all(finding.workflow_id for finding in report.findings)


async def test_verify_without_temporal_or_without_an_import_is_one_line(
    database: str, path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutboxError, match=f"nothing has been imported as '{name}'"):
        await verified(database, path)
    await build(database, 1)
    await moved(database, path)
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    with pytest.raises(OutboxError, match="Temporal cannot be reached: "):
        await verified(database, path)


async def test_rollback_takes_back_what_is_not_delivered_and_lists_what_is(
    database: str, path: Path, name: str, temporal_client: Client
) -> None:
    await build(database, 40)
    await moved(database, path)
    async with connected(database) as connection:
        held = "update outbox.message set due_at = now() + interval '1 hour' where seq > (select min(seq) + 9 from outbox.message)"
        await connection.execute(held)
        async with delivering(database):
            await eventually(lambda: connection.fetchval("select count(*) from outbox.history"), lambda n: n == 10)
        await connection.execute(  # one is in a worker's hands
            "update outbox.message set leased_until = now() + interval '1 hour', lease_token = 1 where target ->> 'workflow_id' = $1",
            f"{name}-wi-000040",
        )
    dry = await rolled_back(database, path, dry_run=True)
    assert (await counts(database))["message"] == 30
    report = await rolled_back(database, path)
    assert report.counts == dry.counts == {"messages cancelled": 29, "workflows left": 10, "in flight": 1}
    assert {finding.identity: finding.what for finding in report.findings} == {
        **{f"wi-{number:06}": "workflows left" for number in range(1, 11)},
        "wi-000040": "in flight",
    }
    assert (await counts(database))["message"] == 1
    assert (await moved(database, path)).counts == {"moved": 29, "already there": 11, "refused": 0}
    assert await statuses(temporal_client, name, [1, 10]) == [WorkflowExecutionStatus.RUNNING] * 2


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_rollback_ends_started_workflows_through_the_outbox_and_the_import_can_be_run_again(
    database: str, path: Path, name: str, temporal_client: Client, how: Started
) -> None:
    await build(database, 20)
    stranger = await temporal_client.start_workflow("Approval", id=f"{name}-wi-000002", task_queue="unserved")
    written(path.parent, of(name, "on_duplicate = 'accept'\n"))
    await moved(database, path)
    await deliver(database)
    await temporal_client.get_workflow_handle(f"{name}-wi-000003").terminate()
    dry = await rolled_back(database, path, started=how, dry_run=True)
    report = await rolled_back(database, path, started=how)
    assert report.findings == []
    assert (
        report.counts
        == dry.counts
        == {
            "workflows to be ended": 18,
            "workflows of other origin left alone": 1,
            "workflows ended before": 1,
        }
    )
    assert await fetch(database, "select from outbox.import") == []
    with pytest.raises(OutboxError, match="18 workflows of .* are still to be ended by the last rollback"):
        await moved(database, path)
    await deliver(database)
    assert (await stranger.describe()).status == WorkflowExecutionStatus.RUNNING
    if how == "terminate":
        assert await statuses(temporal_client, name, [1, 20]) == [WorkflowExecutionStatus.TERMINATED] * 2
        assert (await moved(database, path)).counts["moved"] == 20
        await deliver(database)
        again = await verified(database, path)
        assert again.counts == {"running": 19, "workflow of other origin": 1}
    else:
        history = await temporal_client.get_workflow_handle(f"{name}-wi-000001").fetch_history()
        [asked] = [e for e in history.events if e.HasField("workflow_execution_cancel_requested_event_attributes")]
        assert asked.workflow_execution_cancel_requested_event_attributes.cause == f"rollback of {name}"


async def test_what_has_ended_by_itself_is_not_forgotten_so_that_it_is_not_done_twice(
    database: str, path: Path, name: str, temporal_client: Client
) -> None:
    await build(database, 2)
    queue = f"queue-{name}"
    written(
        path.parent,
        of(name).replace('"unserved"', f'"{queue}"').replace('"Approval"', '"Collects"') + "[input]\ncolumn = 'id'\n",
    )
    await moved(database, path)
    await deliver(database)
    async with serving(Worker(temporal_client, task_queue=queue, workflows=[Collects])):
        handle = temporal_client.get_workflow_handle(f"{name}-wi-000001")
        await handle.signal("add", "stop")
        await handle.result()
    report = await rolled_back(database, path, started="terminate")
    assert reasons(report) == {
        "wi-000001": "workflows left: it has completed: imported again, its work would be done twice"
    }
    await deliver(database)
    assert (await moved(database, path)).counts == {"moved": 1, "already there": 1, "refused": 0}


@pytest.mark.parametrize("how", ["list", "terminate"])
async def test_a_workflow_counts_for_more_than_what_became_of_its_message(
    database: str, path: Path, name: str, temporal_client: Client, how: Started
) -> None:
    """A try that got through without an answer has started it. Then the message was taken back, or waits."""
    await build(database, 8)
    await moved(database, path)
    async with connected(database) as connection:
        await connection.execute("create table sent as select * from outbox.message")
        await deliver(database)
        await connection.execute("truncate outbox.history")
        await connection.execute("update sent set claimed_at = now(), lease_token = null, leased_until = null")
        await connection.execute("insert into outbox.message overriding system value select * from sent")
        taken = "select outbox.cancel(message_id) from outbox.message where target ->> 'workflow_id' = any ($1)"
        await connection.execute(taken, [f"{name}-wi-{number:06}" for number in (1, 2, 3, 4)])
        await connection.execute(
            "update outbox.history set outcome = 'discarded' where workflow_id = $1", f"{name}-wi-000004"
        )
    for number in (3, 6, 7):
        await temporal_client.get_workflow_handle(f"{name}-wi-{number:06}").terminate()
    report = await rolled_back(database, path, started=how, dry_run=True)
    assert report.counts == (await rolled_back(database, path, started=how)).counts
    if how == "list":
        assert report.counts == {"messages cancelled before": 4, "messages cancelled": 4, "tried before": 8}
    else:
        assert report.counts == {"messages cancelled before": 4, "messages cancelled": 4}
        await deliver(database)
        assert await statuses(temporal_client, name, [*range(1, 9)]) == [WorkflowExecutionStatus.TERMINATED] * 8


@pytest.mark.parametrize("fate", ["waiting", "dead", "cancelled", "discarded", "delivered", "duplicate", None])
@pytest.mark.parametrize("status", ["completed", "failed", "timed out"])
def test_a_row_with_a_finished_workflow_stays_after_any_end_of_its_message(fate: str | None, status: str) -> None:
    row = Moved("1", uuid4(), "", "W", "w-1", fate, tried=True, error=None)
    judged = verdict(row, Seen(status, "W", ours=True), "terminate")
    assert judged == ("workflows left", f"it has {status}: imported again, its work would be done twice", False)
    others = verdict(row, Seen(status, "W", ours=False), "terminate")
    assert not others.ends
    assert not others.stays


async def test_a_dead_letter_of_an_import_goes_with_the_rollback(database: str, path: Path, name: str) -> None:
    await build(database, 3)
    await moved(database, path)
    await fetch(
        database,
        """update outbox.message set target = (target::jsonb || '{"search_attributes": {"NobodyKnowsThis": 1}}')::json""",
    )
    await deliver(database)
    assert (await counts(database))["dead_letter"] == 3
    report = await rolled_back(database, path, started="terminate")
    assert (report.counts, report.findings) == ({"dead letters deleted": 3}, [])
    assert await counts(database) == {"message": 0, "history": 0, "dead_letter": 0}
    assert await fetch(database, "select from outbox.import") == []
