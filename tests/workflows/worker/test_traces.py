"""A producer's trace goes on through the relay into the workflow: real processes, a real exporter, over the wire."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio.client import Client

from outbox.model.events import Claimed, Completed, LeaseLost, Released, Retried, SettleRefused
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from outbox.observability.otlp import exporters, exporting
from outbox.observability.traces import Spans
from outbox.producer import enqueue, start_workflow
from outbox_workflows.approval.types import SimpleRequest
from tests.support.collector import collector
from tests.support.processes import worker_process, workflow_worker_process
from tests.support.running import running
from tests.support.sinks import FakeSink
from tests.support.sql import connected
from tests.temporal.conftest import message

pytestmark = pytest.mark.timeout(120)
ONE = "outbox.deliver"


@pytest.fixture
def finished() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(finished: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(finished))
    yield provider.get_tracer("test")
    provider.shutdown()


async def test_one_trace_leads_from_the_producer_through_the_relay_into_workflow_and_activities(
    surroundings: dict[str, str],
    application_database: str,
    temporal_client: Client,
    task_queue: str,
    tmp_path: Path,
) -> None:
    workflow_id = f"approval-{uuid4()}"
    request = SimpleRequest(str(uuid4()), "7", "A new laptop", "rita@acme.example", approver="alice@acme.example")
    with collector() as received:
        shop = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
        shop.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{received.endpoint}/v1/traces")))
        environment = surroundings | received.environment
        with (
            worker_process(tmp_path, "relay", **environment) as relay,
            workflow_worker_process(tmp_path, "workflows", **environment) as workflows,
        ):
            await relay.logged("wake-up source subscribed")
            await workflows.logged("workflow worker started")
            async with connected(application_database) as application, application.transaction():
                with shop.get_tracer("shop").start_as_current_span("place order"):
                    message_id = await start_workflow(
                        application, "Approval", workflow_id, request, task_queue=task_queue
                    )
            names = ["place order", ONE, "RunWorkflow:Approval"]
            spans = await received.until(*names)
            await temporal_client.get_workflow_handle(workflow_id).terminate()
            assert (relay.stop(), workflows.stop()) == (0, 0)
        shop.shutdown()
    order, delivery, workflow = (spans[name] for name in names)
    assert (order.service, delivery.service, workflow.service) == ("shop", "outbox", "outbox-workflows")
    assert {span.trace for span in received.spans} == {order.trace}
    assert (order.parent, delivery.parent, workflow.parent) == ("", order.id, order.id)

    # What was exported when the processes ended counts as well: nothing is lost in a drain.
    by_id = {span.id: span for span in received.spans}
    activities = [span for span in received.spans if span.name.startswith("RunActivity:")]
    assert activities
    for activity in activities:
        start = by_id[activity.parent]
        assert start.name == activity.name.replace("Run", "Start", 1)
        assert start.parent in (order.id, workflow.id), "as the SDK has it: beside the span of the run, or below it"

    reported = delivery.attributes
    assert UUID(reported["messaging.message.id"]) == message_id
    assert (reported["outbox.outcome"], reported["outbox.workflow_id"], reported["outbox.attempts"]) == (
        "delivered",
        workflow_id,
        0,
    )
    lasted_s = (delivery.end_ns - delivery.start_ns) / 1e9
    assert lasted_s == pytest.approx(reported["outbox.claim_s"] + reported["outbox.deliver_s"], abs=0.05)
    assert reported["outbox.settle_s"] >= 0
    assert not delivery.failed


async def test_each_delivery_is_a_span_and_says_how_it_ended(
    database: str, tracer: Tracer, finished: InMemorySpanExporter
) -> None:
    answers: list[Outcome] = [Failed("SLOW", "busy"), Delivered("w"), Rejected("BAD", "no")]
    sink = FakeSink(lambda _: answers.pop(0))
    async with running(database, sink, concurrency=1) as relay, connected(database) as connection:
        relay.log.events.clear()
        relay.worker._emit.subscribe(Spans(tracer))
        with tracer.start_as_current_span("first") as first:
            await enqueue(connection, "orders")
        await relay.wait_completed(1)
        with tracer.start_as_current_span("second") as second:
            await enqueue(connection, "orders")
        await relay.wait_buried()
        await enqueue(connection, "untraced", headers={"traceparent": "7"})
        answers.append(Delivered())
        await enqueue(connection, "untraced")
        answers.append(Delivered())
        await relay.wait_completed(3)
    spans = [span for span in finished.get_finished_spans() if span.name == ONE]
    assert [(span.attributes or {})["outbox.outcome"] for span in spans] == ["retried", "delivered", "rejected"]
    assert [(span.attributes or {}).get("error.type") for span in spans] == ["SLOW", None, "BAD"]
    assert [span.parent.span_id for span in spans if span.parent] == [
        each.get_span_context().span_id for each in (first, first, second)
    ]
    retried, again, _ = spans
    assert retried.start_time is not None
    assert again.start_time is not None
    assert retried.end_time is not None
    assert again.start_time >= retried.end_time, "a repetition begins with its claim"
    assert relay.log.of(Retried)
    assert relay.log.of(Completed)


def test_messages_that_go_back_or_are_lost_are_forgotten_without_a_span(
    tracer: Tracer, finished: InMemorySpanExporter
) -> None:
    spans = Spans(tracer)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    held = [message(None, headers=headers) for _ in range(3)]
    spans(Claimed(held, 0.1))
    assert len(spans._in_hand) == 3
    spans(Released(held[:1], "hold"))
    spans(LeaseLost(held[1:2]))
    spans(SettleRefused(held[2], "no"))
    assert spans._in_hand == {}
    assert finished.get_finished_spans() == ()


async def test_a_collector_that_is_away_costs_no_message_and_no_line_that_is_not_json(
    surroundings: dict[str, str], application_database: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": away, "OTEL_EXPORTER_OTLP_HEADERS": "canary-of-a-token"}
    header: dict[str, str] = {}
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("lost"):
        TraceContextTextMapPropagator().inject(header)
    more = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OUTBOX_SINK": "tests.support.sinks:null_sink"}
    with worker_process(tmp_path, "relay", **surroundings | environment | more) as relay:
        async with connected(application_database) as connection:
            await enqueue(connection, "orders", headers=header)
        await relay.logged("completed")
        assert relay.stop() == 0
    lines = [json.loads(line) for line in relay.log.read_bytes().splitlines()]
    assert any("export" in line["message"] and line["level"] in ("WARNING", "ERROR") for line in lines)
    assert "canary" not in relay.log.read_text()


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, []),
        (
            {"OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["otlp_proto_grpc", "console"],
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_opentelemetrys_own_variables_say_where_spans_go(
    environment: dict[str, str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert exporters() == names


@pytest.mark.parametrize(
    ("missing", "exporter", "said"),
    [
        ("opentelemetry.sdk.trace", "otlp", "pip install 'temporal-outbox[opentelemetry]'"),
        (None, "carrier-pigeon", "there is no exporter carrier-pigeon"),
    ],
)
async def test_without_the_library_there_is_one_warning_and_no_trace(
    missing: str | None, exporter: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporter)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    doubts: list[Any] = []
    async with exporting("test", doubts.extend) as tracer:
        assert tracer is None
    [doubt] = doubts
    assert said in doubt


def test_opentelemetry_is_not_loaded_without_its_variables() -> None:
    script = "import sys, outbox.cli.main, outbox_temporal.sink.sink; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
