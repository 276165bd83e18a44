"""A message with only a topic, through the whole relay, on a real Temporal server."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from outbox.model.errors import ConfigurationError
from outbox.model.events import Buried
from outbox.model.sink import Delivered, Rejected, Throttled
from outbox_temporal.sdk.worker import serving
from outbox_temporal.sink import temporal_sink
from tests.support.eventually import eventually
from tests.support.running import counts, fetch, running
from tests.support.shared import SharedServer
from tests.temporal.conftest import CONTEXT, message, start
from tests.temporal.definitions import Collects, Echo

ROUTES = """
[defaults]
task_queue = "{run}"

[[route]]
topic = "organization.created"
workflow = "Echo"
workflow_id = "org-bootstrap-{{organization_id}}-{run}"
run_timeout = "1h"
execution_timeout = "2h"
[route.retry_policy]
maximum_attempts = 3
[route.memo]
plan = "{{plan}}"

[[route]]
topic = "cart.*"
operation = "signal_with_start_workflow"
workflow = "Collects"
signal = "add"
workflow_id = "cart-{{key}}-{run}"

[[route]]
topic = "cart.closed"
operation = "signal_workflow"
signal = "add"
workflow_id = "cart-{{key}}-{run}"

[[route]]
topic = "cart.lost"
operation = "cancel_workflow"
workflow_id = "cart-{{key}}-{run}"
reason = "{{payload}}"

[[route]]
topic = "order.*"
operation = "record"

[[route]]
topic = "cart.burnt"
operation = "terminate_workflow"
workflow_id = "cart-{{key}}-{run}"
"""


@pytest.fixture
def run() -> str:
    """Sets this test's workflows apart from the others'."""
    return uuid4().hex[:12]


@pytest.fixture
def routed(environment: pytest.MonkeyPatch, temporal_server: SharedServer, tmp_path: Path, run: str):
    """An environment with routes."""
    path = tmp_path / "my-routes.toml"
    path.write_text(ROUTES.format(run=run), encoding="utf-8")
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    environment.setenv("OUTBOX_ROUTES", str(path))
    return environment


async def test_a_topic_starts_the_workflow_of_its_route(
    database: str, routed: pytest.MonkeyPatch, temporal_client: Client, run: str
) -> None:
    payload = '{"organization_id": 42,  "plan": 1.50}'
    [row] = await fetch(database, "select outbox.enqueue('organization.created', $1::json) as id", payload)
    async with running(database, factory=temporal_sink) as relay:
        await relay.wait_completed(1)
    handle = temporal_client.get_workflow_handle(f"org-bootstrap-42-{run}")
    event = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    assert event.workflow_type.name == "Echo"
    assert event.task_queue.name == run
    assert event.workflow_run_timeout.ToSeconds() == 3600
    assert event.workflow_execution_timeout.ToSeconds() == 7200
    assert event.retry_policy.maximum_attempts == 3
    assert event.memo.fields["plan"].data == b"1.50"
    assert event.memo.fields["outbox_message_id"].data == f'"{row["id"]}"'.encode()
    assert [payload.data for payload in event.input.payloads] == [payload.encode()]
    async with serving(Worker(temporal_client, task_queue=run, workflows=[Echo])):
        assert await handle.result() == [{"organization_id": 42, "plan": 1.5}, None]
    [kept] = await fetch(database, "select workflow_id from outbox.message_life where message_id = $1", row["id"])
    assert kept["workflow_id"] == f"org-bootstrap-42-{run}"


async def test_every_operation_can_be_routed(
    database: str, routed: pytest.MonkeyPatch, temporal_client: Client, run: str
) -> None:
    enqueue = "select outbox.enqueue($1, $2::json, key => $3)"
    async with running(database, factory=temporal_sink) as relay:
        for key in "abc":
            await fetch(database, enqueue, "cart.opened", '"first"', key)
        await relay.wait_completed(3)
        async with serving(Worker(temporal_client, task_queue=run, workflows=[Collects])):
            await fetch(database, enqueue, "cart.closed", '"stop"', "a")
            await fetch(database, enqueue, "cart.lost", '"why"', "b")
            await fetch(database, enqueue, "cart.burnt", None, "c")
            await relay.wait_completed(6)
            done = await temporal_client.get_workflow_handle(f"cart-a-{run}").result()

            async def states() -> list[str]:
                handles = [temporal_client.get_workflow_handle(f"cart-{key}-{run}") for key in "bc"]
                return [str((await handle.describe()).status.name) for handle in handles]  # type: ignore[union-attr]

            assert await eventually(states, lambda s: "RUNNING" not in s) == ["CANCELED", "TERMINATED"]
    assert done == ["first", "first", "stop"]  # the start's argument, then its signal's, then the other's


async def test_a_message_with_a_target_of_its_own_never_uses_the_routes(routed: pytest.MonkeyPatch, run: str) -> None:
    sent = message(start(f"own-{run}"), payload={"organization_id": 1})
    async with temporal_sink(CONTEXT) as sink:
        outcome = await sink.deliver(sent._replace(topic="organization.created"))
    assert isinstance(outcome, Delivered)
    assert outcome.workflow_id == f"own-{run}"


async def test_what_is_only_recorded_is_delivered_without_a_call(database: str, routed: pytest.MonkeyPatch) -> None:
    await fetch(database, "select outbox.enqueue('order.paid', '{}', key => 'order-7')")
    async with running(database, factory=temporal_sink) as relay:
        await relay.wait_completed(1)
    [life] = await fetch(database, "select status, outcome, worker, workflow_id, run_id from outbox.message_life")
    assert tuple(life) == ("completed", "delivered", "worker-1", None, None)
    routed.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")  # no server is there
    async with temporal_sink(CONTEXT) as sink:
        paid = message(None)._replace(topic="order.paid", key="order-7")
        assert await sink.deliver(paid) == Delivered()


@pytest.mark.parametrize(
    ("topic", "payload", "says"),
    [("unknown.topic", "{}", "no route in"), ("organization.created", "{}", "{organization_id} is missing")],
)
async def test_an_unroutable_message_is_a_dead_letter_with_the_reason(
    database: str, routed: pytest.MonkeyPatch, topic: str, payload: str, says: str
) -> None:
    await fetch(database, "select outbox.enqueue($1, $2::json)", topic, payload)
    async with running(database, factory=temporal_sink) as relay:
        await relay.log.wait_for(Buried)
    [dead] = await fetch(database, "select reason, errors -> -1 as error from outbox.dead_letter")
    assert dead["reason"] == "rejected"
    assert '"UNROUTABLE"' in dead["error"]
    assert says in dead["error"]


async def test_an_unroutable_message_can_be_left_until_a_route_is_there(
    database: str, routed: pytest.MonkeyPatch, tmp_path: Path, temporal_client: Client, run: str
) -> None:
    routed.setenv("OUTBOX_UNROUTABLE", "leave")
    await fetch(database, "select outbox.enqueue('unknown.topic', '{}', key => 'k')")

    async def left() -> list[object]:
        rows = await fetch(database, "select attempts, errors -> -1 ->> 'kind' as kind from outbox.message")
        return [tuple(row) for row in rows]

    async def times() -> int:
        [row] = await fetch(database, "select jsonb_array_length(errors) as times from outbox.message")
        return row["times"]

    async with running(database, factory=temporal_sink, max_attempts=1, max_deliveries=3):
        await eventually(times, lambda n: n >= 5)
    assert await left() == [(0, "UNROUTABLE")]
    assert await counts(database) == {"message": 1, "history": 0, "dead_letter": 0}
    more = '[[route]]\ntopic = "unknown.*"\nworkflow = "Echo"\nworkflow_id = "{key}-' + run + '"\n'
    with (tmp_path / "my-routes.toml").open("a", encoding="utf-8") as file:
        file.write(more)
    async with running(database, factory=temporal_sink) as relay:
        await relay.wait_completed(1)
    assert await temporal_client.get_workflow_handle(f"k-{run}").describe()


@pytest.mark.parametrize("leave", [False, True])
async def test_without_routes_a_message_without_target_meets_the_same_two_fates(
    environment: pytest.MonkeyPatch, temporal_server: SharedServer, leave: bool
) -> None:
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    environment.setenv("OUTBOX_UNROUTABLE", "leave" if leave else "bury")
    async with temporal_sink(CONTEXT) as sink:
        outcome = await sink.deliver(message(None))
    assert isinstance(outcome, Throttled if leave else Rejected)
    assert outcome.kind == "NO_TARGET"


async def test_the_file_in_the_working_directory_is_taken_by_itself(
    environment: pytest.MonkeyPatch, temporal_server: SharedServer, tmp_path: Path, run: str
) -> None:
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    (tmp_path / "outbox.toml").write_text(ROUTES.format(run=run), encoding="utf-8")
    environment.chdir(tmp_path)
    sent = message(None, payload={"organization_id": 7, "plan": "x"})._replace(topic="organization.created")
    async with temporal_sink(CONTEXT) as sink:
        outcome = await sink.deliver(sent)
    assert isinstance(outcome, Delivered)
    assert outcome.workflow_id == f"org-bootstrap-7-{run}"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("OUTBOX_ROUTES", "absent.toml", "absent.toml cannot be read"),
        ("OUTBOX_UNROUTABLE", "drop", "OUTBOX_UNROUTABLE is 'drop': "),
    ],
)
async def test_a_setting_that_cannot_be_used_ends_the_start(
    routed: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    routed.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=says):
        async with temporal_sink(CONTEXT):
            pass


async def test_a_route_without_any_task_queue_ends_the_start(routed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "my-routes.toml"
    path.write_text('[[route]]\ntopic = "a"\nworkflow = "W"\nworkflow_id = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"my-routes.toml:1: route 'a' has no task_queue"):
        async with temporal_sink(CONTEXT):
            pass
    routed.setenv("OUTBOX_TEMPORAL_TASK_QUEUE", "default")
    async with temporal_sink(CONTEXT):
        pass
