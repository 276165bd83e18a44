"""A producer has the worker's credentials in its hands: what it may ask for is the worker's allow-list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from outbox.model.errors import ConfigurationError
from outbox.model.sink import Delivered, Rejected, Sink
from outbox_temporal.sink import settings, temporal_sink
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.target.target import NEEDS, Command, Target
from tests.support.shared import SharedServer
from tests.temporal.conftest import CONTEXT, message, start

OPERATIONS = tuple(NEEDS)


def target(operation: str, **more: Any) -> dict[str, Any]:
    fields = {"operation": operation, "workflow_id": "w", "workflow": "W", "signal": "s", "task_queue": "q"}
    return fields | more


def refusal(operation: str, chosen: dict[str, str] | None = None, **more: Any) -> str | None:
    """Why a worker of the namespace `own` refuses a target."""
    model = settings.TemporalSettings.model_validate(
        {f"OUTBOX_TEMPORAL_{name.upper()}": value for name, value in (chosen or {}).items()}
    )
    wanted = Target.model_validate(target(operation, **more))
    found = Allowed(model, "own").refusal(Command(wanted, wanted.workflow_id))
    assert found is None or found.kind == "NOT_ALLOWED"
    return None if found is None else found.detail


@pytest.mark.parametrize("operation", OPERATIONS)
class TestEveryOperation:
    def test_is_allowed_in_the_own_namespace_by_default(self, operation: str) -> None:
        assert refusal(operation) is None
        assert refusal(operation, namespace="own") is None

    @pytest.mark.parametrize("namespace", ["another", "ownx", "OWN", "temporal-system"])
    def test_is_refused_in_every_other_namespace_by_default(self, operation: str, namespace: str) -> None:
        assert refusal(operation, namespace=namespace) is not None

    def test_is_allowed_in_a_namespace_that_is_listed(self, operation: str) -> None:
        chosen = {"allowed_namespaces": "one, tenant-*"}
        assert refusal(operation, chosen, namespace="one") is None
        assert refusal(operation, chosen, namespace="tenant-7") is None
        assert refusal(operation, chosen) is None
        assert "OUTBOX_TEMPORAL_ALLOWED_NAMESPACES" in str(refusal(operation, chosen, namespace="tenant"))

    def test_never_reaches_what_is_temporals_own(self, operation: str) -> None:
        chosen = {"allowed_namespaces": "*", "allowed_workflows": "*", "allowed_task_queues": "*"}
        assert refusal(operation, chosen, namespace="anything") is None
        assert "Temporal's own" in str(refusal(operation, chosen, namespace="temporal-system"))
        assert "Temporal's own" in str(refusal(operation, chosen, workflow_id="temporal-sys-scheduler:daily"))
        assert "Temporal's own" in str(refusal(operation, chosen, workflow="temporal-sys-batch-workflow"))
        assert "Temporal's own" in str(refusal(operation, chosen, task_queue="temporal-sys-per-ns-tq"))

    def test_is_refused_unless_it_is_listed(self, operation: str) -> None:
        others = ",".join(name for name in OPERATIONS if name != operation)
        assert "OUTBOX_TEMPORAL_ALLOWED_OPERATIONS" in str(refusal(operation, {"allowed_operations": others}))
        assert refusal(operation, {"allowed_operations": operation}) is None

    def test_that_starts_is_held_to_types_and_task_queues(self, operation: str) -> None:
        starts = "start" in operation
        for chosen in ({"allowed_workflows": "Order*,Cart"}, {"allowed_task_queues": "orders"}):
            assert (refusal(operation, chosen) is not None) == starts
        chosen = {"allowed_workflows": "Order*,Cart", "allowed_task_queues": "orders"}
        assert refusal(operation, chosen, workflow="OrderPaid", task_queue="orders") is None
        assert refusal(operation, chosen, workflow="Cart", task_queue=None) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", "a, temporal-system", "never allowed"),
        ("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", ",", "at least 1"),
        ("OUTBOX_TEMPORAL_ALLOWED_OPERATIONS", "start", "start is no operation"),
    ],
)
def test_list_that_cannot_be_meant_is_refused(
    environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said):
        settings.load()


async def test_nothing_is_sent_for_what_is_refused(
    sink: Sink, temporal_client: Client, workflow_id: str, tmp_path: Path
) -> None:
    assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)
    stranger = message(target("terminate_workflow", workflow_id=workflow_id, namespace="temporal-system"))
    for sent in (stranger, message(start("temporal-sys-x")), message(start("x", namespace="elsewhere"))):
        outcome = await sink.deliver(sent)
        assert isinstance(outcome, Rejected)
        assert outcome.kind == "NOT_ALLOWED"
    description = await temporal_client.get_workflow_handle(workflow_id).describe()
    assert description.status is WorkflowExecutionStatus.RUNNING


async def test_route_goes_by_the_list_too(
    temporal_server: SharedServer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.toml"
    path.write_text(
        '[[route]]\ntopic = "test"\noperation = "terminate_workflow"\nworkflow_id = "w"\nnamespace = "{payload}"\n'
    )
    environment.setenv("OUTBOX_ROUTES", str(path))
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    async with temporal_sink(CONTEXT) as sink:
        outcome = await sink.deliver(message(None, "temporal-system"))
    assert isinstance(outcome, Rejected)
    assert outcome.kind == "NOT_ALLOWED"
