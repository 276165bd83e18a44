"""What `outbox doctor` says of Temporal, each thing broken by itself on real servers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from outbox.model.finding import Finding
from outbox.model.sink import Examiner, examiner
from outbox.store.messages import Burial
from outbox_temporal import doctor as examination
from outbox_temporal.doctor.server import refusal
from outbox_temporal.sink import temporal_sink
from tests.support import examining
from tests.support.eventually import eventually
from tests.support.examining import safe, untried, wrong
from tests.support.running import fetch
from tests.support.shared import SharedServer
from tests.support.sinks import null_sink
from tests.support.sql import clock
from tests.temporal.definitions import Echo

pytestmark = pytest.mark.timeout(90)
ROUTE = """
[[route]]
topic = "order.created"
workflow = "Echo"
workflow_id = "order-{key}"
task_queue = "%s"
"""
OF_TEMPORAL = {check.what for check in examination.CHECKS}


@pytest.fixture(autouse=True)
def chosen(environment: pytest.MonkeyPatch, temporal_server: SharedServer, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that leads to the shared server, and a directory without routes."""
    environment.chdir(tmp_path)
    environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    return environment


async def examined(dsn: str, **settings: Any) -> list[Finding]:
    """What is found; the shared server's namespace keeps for a day, and so does the history here."""
    return await examining.examined(dsn, temporal_sink, **({"history_days": 1} | settings))


async def only(dsn: str, what: str, **settings: Any) -> Finding:
    """The one thing that is wrong, and nothing else is."""
    findings = await examined(dsn, **settings)
    found = wrong(findings)
    assert set(found) == {what}, found
    assert safe(findings) == (found[what].grade != "fault")
    return found[what]


@asynccontextmanager
async def polled(client: Client) -> AsyncIterator[str]:
    """A task queue at which a worker works."""
    queue = f"queue-{uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=[Echo]):
        yield queue


async def test_healthy_installation_has_no_finding_but_good_ones(
    database: str, temporal_client: Client, chosen: pytest.MonkeyPatch
) -> None:
    async with polled(temporal_client) as queue:
        Path("outbox.toml").write_text(ROUTE % queue)
        chosen.setenv("OUTBOX_TEMPORAL_TASK_QUEUE", queue)
        await fetch(database, "select outbox.enqueue('order.created', '{}', key => '1')")
        await fetch(database, "select outbox.start_workflow('Echo', 'w')")

        async def grades() -> list[Finding]:
            return await examined(database)

        findings = await eventually(grades, lambda found: not wrong(found))
    assert {finding.grade for finding in findings} == {"good"}, untried(findings)
    assert {finding.what for finding in findings} >= OF_TEMPORAL
    by_what = {finding.what: finding.detail for finding in findings}
    assert by_what["task queues"] == f"polled: {queue}"
    assert by_what["routes"].startswith("1 in outbox.toml")


def test_only_a_factory_that_examines_is_taken_for_one() -> None:
    assert isinstance(temporal_sink, Examiner)
    assert examiner(null_sink) is None


# The way there


@pytest.mark.parametrize(
    ("variables", "detail", "cure"),
    [
        ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, "127.0.0.1:1: refused, nothing listens there", "TEMPORAL_ADDRESS"),
        ({"TEMPORAL_ADDRESS": "no-such-host.invalid:7233"}, "the name is not known", "TEMPORAL_ADDRESS"),
        ({"TEMPORAL_TLS": "true"}, "it speaks no TLS there", "TEMPORAL_TLS=false"),
    ],
)
async def test_way_that_does_not_lead_there_is_a_fault(
    database: str, chosen: pytest.MonkeyPatch, variables: dict[str, str], detail: str, cure: str
) -> None:
    for name, value in variables.items():
        chosen.setenv(name, value)
    found = await only(database, "Temporal")
    assert detail in found.detail
    assert cure in str(found.cure)
    because = untried(await examined(database))
    assert set(because) == {"Temporal's credentials", "namespace", "retention", "task queues"}


@asynccontextmanager
async def tls_server(*names: str) -> AsyncIterator[tuple[str, trustme.CA]]:
    """A server that speaks TLS with a certificate of an unknown authority, and then says nothing more."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert(*names).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}", authority


async def test_certificates_that_are_not_verified_are_distinguished(
    database: str, chosen: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen.setenv("TEMPORAL_TLS", "true")
    async with tls_server("127.0.0.1") as (address, _):
        chosen.setenv("TEMPORAL_ADDRESS", address)
        found = await only(database, "Temporal")
        assert "not from a known authority" in found.detail
        assert "TEMPORAL_TLS_SERVER_CA_CERT_PATH" in str(found.cure)
    async with tls_server("elsewhere.example") as (address, authority):
        chosen.setenv("TEMPORAL_ADDRESS", address)
        authority.cert_pem.write_to_path(str(tmp_path / "root.pem"))
        chosen.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(tmp_path / "root.pem"))
        found = await only(database, "Temporal")
        assert "for another name" in found.detail
        assert "TEMPORAL_TLS_SERVER_NAME" in str(found.cure)
    async with tls_server("127.0.0.1") as (address, _):
        chosen.setenv("TEMPORAL_ADDRESS", address)
        chosen.setenv("TEMPORAL_TLS", "false")
        chosen.delenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH")
        assert (await only(database, "Temporal")).cure


async def test_a_silent_server_is_reported_in_time(database: str, chosen: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as silent:
        chosen.setenv("TEMPORAL_ADDRESS", f"127.0.0.1:{silent.sockets[0].getsockname()[1]}")
        found = await only(database, "Temporal", deliver_timeout_s=2.0)
    assert "no answer in time" in found.detail


@pytest.mark.parametrize("status", [RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED])
def test_refused_credentials_are_distinguished_from_the_way(status: RPCStatusCode) -> None:
    found = refusal(RPCError("Request unauthorized.", status, b""), "temporal:7233")
    assert (found.what, found.grade) == ("Temporal's credentials", "fault")
    assert "Request unauthorized." in found.detail
    assert "TEMPORAL_API_KEY" in str(found.cure)


# Namespaces


async def test_missing_namespace_is_a_fault(database: str, chosen: pytest.MonkeyPatch) -> None:
    chosen.setenv("TEMPORAL_NAMESPACE", "staging")
    findings = await examined(database)
    assert {what: finding.grade for what, finding in wrong(findings).items()} == {"namespace": "fault"}
    assert "temporal operator namespace create" in str(wrong(findings)["namespace"].cure)
    assert {"retention"} == set(untried(findings))


async def test_message_that_the_allow_list_refuses_is_a_fault_before_it_dies(
    database: str, chosen: pytest.MonkeyPatch
) -> None:
    chosen.setenv("OUTBOX_TEMPORAL_ALLOWED_OPERATIONS", "start_workflow,signal_workflow")
    await fetch(database, "select outbox.terminate_workflow('w')")
    found = await only(database, "allow-list")
    assert (found.grade, "operation 'terminate_workflow' is not allowed" in found.detail) == ("fault", True)


async def test_missing_namespace_that_a_message_names_is_a_warning(database: str, chosen: pytest.MonkeyPatch) -> None:
    chosen.setenv("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", "nowhere")
    await fetch(database, "select outbox.start_workflow('W', 'w', task_queue => 'q', namespace => 'nowhere')")
    findings = await examined(database)
    found = wrong(findings)["namespace"]
    assert (found.grade, "there is no nowhere" in found.detail) == ("warning", True)
    assert set(untried(findings)) == {"task queues"}


async def test_retention_shorter_than_the_history_is_a_warning(database: str) -> None:
    found = await only(database, "retention", history_days=30)
    assert (found.grade, "--retention 720h" in str(found.cure)) == ("warning", True)
    assert not wrong(await examined(database, history_days=30, history=False))


async def test_retention_shorter_than_the_age_of_a_dead_letter_is_a_warning(database: str) -> None:
    async with clock(database) as worker:
        await fetch(database, "select outbox.start_workflow('Probe', 'w', task_queue => 'unserved')")
        worker.store.now = None
        [message] = await worker.claim()
        await worker.store.bury([Burial(message, "rejected", True, "KIND", "detail")])
    assert not wrong(await examined(database))
    await fetch(
        database,
        "update outbox.dead_letter set claimed_at = now() - interval '3 days',"
        " errors = jsonb_set(errors, '{0,at}', to_jsonb(now() - interval '3 days'))",
    )
    found = await only(database, "retention")
    assert (found.grade, found.cure) == ("warning", "outbox dead list --older-than 86400s")
    assert "first tried 3 d ago" in found.detail


# Task queues


async def test_task_queue_without_a_worker_is_a_warning_from_every_place_that_names_it(
    database: str, chosen: pytest.MonkeyPatch
) -> None:
    Path("outbox.toml").write_text(ROUTE % "of-a-route")
    await fetch(database, "select outbox.start_workflow('W', 'w', task_queue => 'of-a-message')")
    chosen.setenv("OUTBOX_TEMPORAL_TASK_QUEUE", "of-the-setting")
    findings = [finding for finding in await examined(database) if finding.what == "task queues"]
    assert [finding.grade for finding in findings] == ["warning"] * 3
    for name in ("of-a-message", "of-a-route", "of-the-setting"):
        assert any(f"no worker polls {name}:" in finding.detail for finding in findings)


async def test_a_misspelt_task_queue_is_named_after_the_delivery_too(database: str) -> None:
    delivered = (
        "insert into outbox.history (message_id, seq, created_at, available_at, settled_at, deliveries, attempts,"
        " outcome, topic, operation, task_queue) values"
        " (gen_random_uuid(), 1, now(), now(), now() - interval '%s', 1, 0, 'delivered', 'W', 'start_workflow', '%s')"
    )
    await fetch(database, delivered % ("1 minute", "oders"))
    await fetch(database, delivered % ("2 hours", "of-old"))
    found = await only(database, "task queues")
    assert found.detail.startswith("no worker polls oders: ")


async def test_messages_that_name_no_task_queue_are_reported(database: str) -> None:
    await fetch(database, "select outbox.start_workflow('W', 'w')")
    found = await only(database, "task queues")
    assert (found.grade, found.cure) == ("warning", "OUTBOX_TEMPORAL_TASK_QUEUE=…")


# Routes and settings


async def test_file_of_routes_with_a_fault_keeps_nothing_else_from_its_turn(database: str) -> None:
    Path("outbox.toml").write_text(ROUTE.replace("topic", "tpic") % "q")
    findings = await examined(database)
    assert {what: finding.grade for what, finding in wrong(findings).items()} == {"routes": "fault"}
    assert "did you mean topic?" in " ".join(f.detail for f in findings if f.grade == "fault")
    assert next(f.grade for f in findings if f.what == "namespace") == "good"


async def test_topic_that_no_route_matches_is_a_fault_unless_its_messages_are_left(
    database: str, chosen: pytest.MonkeyPatch
) -> None:
    await fetch(database, "select outbox.enqueue('order.created', '{}'), outbox.enqueue('invoice.sent', '{}')")
    found = await only(database, "routes")
    assert found.grade == "fault"
    assert "no target and no route: invoice.sent, order.created; a worker would make them dead" in found.detail
    Path("outbox.toml").write_text(ROUTE.replace("%s", "unserved"))
    assert "no route: invoice.sent; a worker" in wrong(await examined(database))["routes"].detail
    chosen.setenv("OUTBOX_UNROUTABLE", "leave")
    assert wrong(await examined(database))["routes"].grade == "warning"


async def test_setting_of_a_route_without_effect_is_a_warning(database: str) -> None:
    Path("outbox.toml").write_text(ROUTE % "unserved" + 'signal = "in vain"\n')
    found = wrong(await examined(database))["routes"]
    assert (found.grade, "signal means nothing to start_workflow" in found.detail) == ("warning", True)


@pytest.mark.parametrize(
    ("name", "value"), [("OUTBOX_TEMPORAL_COMPRESSION", "zip"), ("TEMPORAL_CONFIG_FILE", "/no/such/file")]
)
async def test_setting_that_cannot_be_used_is_a_fault(
    database: str, chosen: pytest.MonkeyPatch, name: str, value: str
) -> None:
    chosen.setenv(name, value)
    found = await only(database, "Temporal's settings")
    assert (found.grade, name in found.detail) == ("fault", True)
    assert set(untried(await examined(database))) == OF_TEMPORAL - {"Temporal's settings"}


async def test_what_needs_no_outbox_is_examined_without_it() -> None:
    Path("outbox.toml").write_text(ROUTE % "unserved")
    findings = await examined("postgresql://postgres@127.0.0.1:1/x")
    assert set(wrong(findings)) == {"reachability", "task queues"}
    assert {"routes", "retention"} < set(untried(findings))
    assert untried(findings)["LISTEN"] == "there is no way into PostgreSQL"


async def test_both_sides_away_are_both_reported(chosen: pytest.MonkeyPatch) -> None:
    chosen.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    findings = await examined("postgresql://postgres@127.0.0.1:1/x")
    assert {what: finding.grade for what, finding in wrong(findings).items()} == {
        "reachability": "fault",
        "Temporal": "fault",
    }
