"""What errors of a server, a proxy or a codec mean for a message. The servers are real; proxies between lose and refuse."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.message import Message as ProtobufMessage
from temporalio.api.common.v1 import GrpcStatus as Status
from temporalio.api.errordetails.v1 import (
    NamespaceInvalidStateFailure,
    NamespaceNotActiveFailure,
    WorkflowNotReadyFailure,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from outbox.model.events import Buried, Held
from outbox.model.sink import Delivered, Failed, Outcome, Rejected, Sink, Throttled, Unavailable, Unclear
from outbox_bench.temporal_stub.grpc_server import GrpcRefusal
from outbox_temporal.sdk.worker import serving
from outbox_temporal.servers.postgres import running
from outbox_temporal.servers.temporal import TemporalServer
from outbox_temporal.sink import temporal_sink
from outbox_temporal.sink.outcomes import outcome_of
from tests.support.eventually import eventually
from tests.support.grpc_proxy import PERMISSION_DENIED, Answer, GrpcProxy, HttpStatus, proxying
from tests.support.probing import free_port
from tests.support.running import counts, fetch
from tests.support.running import running as running_worker
from tests.support.shared import SharedServer
from tests.temporal.conftest import CONTEXT, message, start
from tests.temporal.definitions import ContinuesOnSignal

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def proxy(temporal_server: SharedServer, environment: pytest.MonkeyPatch) -> AsyncIterator[GrpcProxy]:
    async with proxying(temporal_server.address) as proxy:
        environment.setenv("TEMPORAL_ADDRESS", proxy.address)
        yield proxy


def unavailable(meaning: str) -> tuple[type, str]:
    return Unavailable, meaning


def shape(outcome: Outcome) -> tuple[type, str | None]:
    """What a table says of an outcome: its type, and the meaning or scope."""
    return type(outcome), getattr(outcome, "meaning", getattr(outcome, "scope", None))


HTTP = {
    **{status: unavailable("unanswered") for status in (200, 302, 408, 500, 502, 503, 504)},
    **{status: unavailable("refused") for status in (400, 401, 403, 404, 431)},
    413: (Rejected, None),
    429: (Throttled, "sink"),
}


class TestAProxysHttpStatus:
    @pytest.mark.parametrize(
        ("status", "body"), [*((s, b"<html>no</html>") for s in HTTP), *((s, b"") for s in HTTP if s != 200)]
    )
    async def test_has_its_meaning_with_and_without_a_page(
        self, proxy: GrpcProxy, workflow_id: str, status: int, body: bytes
    ) -> None:
        proxy.script = lambda name, _: HttpStatus(status, body) if name == "StartWorkflowExecution" else None
        async with temporal_sink(CONTEXT) as sink:
            outcome = await sink.deliver(message(start(workflow_id)))
        assert shape(outcome) == HTTP[status], outcome
        assert not isinstance(outcome, Delivered)
        assert outcome.kind == ("PAYLOAD_TOO_LARGE" if status == 413 else f"HTTP_{status}")

    @pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian: nginx-light)")
    async def test_too_large_for_nginx_is_a_dead_letter_and_its_key_goes_on(
        self, database: str, nginx: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """nginx takes bodies up to 1 MB unless it is configured otherwise."""
        monkeypatch.setenv("TEMPORAL_ADDRESS", nginx)
        enqueue = "select outbox.start_workflow('Nothing', $1, $2::json, task_queue => 'unserved', key => 'k')"
        await fetch(database, enqueue, "too-large", '"' + "x" * 1_500_000 + '"')
        await fetch(database, enqueue, "small", '"x"')
        async with running_worker(database, factory=temporal_sink) as relay:
            buried = await relay.log.wait_for(Buried)
            await relay.wait_completed(1)
            assert not relay.log.of(Held)
        assert isinstance(buried.outcome, Rejected)
        assert buried.outcome.kind == "PAYLOAD_TOO_LARGE"
        assert "a proxy before Temporal refuses messages of this size" in buried.outcome.detail


@pytest.fixture
def nginx(temporal_server: SharedServer, tmp_path: Path) -> Iterator[str]:
    """The address of a real nginx before Temporal, with its own settings otherwise."""
    port = free_port()
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {paths}"
        f"server {{ listen 127.0.0.1:{port} http2; location / {{ grpc_pass grpc://{temporal_server.address}; }} }} }}"
    )
    with subprocess.Popen(["nginx", "-e", f"{tmp_path}/errors", "-c", configuration]) as process:
        yield f"127.0.0.1:{port}"
        process.terminate()


class TestNotNow:
    """INVALID_ARGUMENT for something that changes costs an attempt, and does not end the message."""

    async def test_signals_beyond_the_limit_of_a_run_reach_the_run_that_follows(
        self, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        limit = {"history.maximumSignalsPerExecution": 2}
        async with running(partial(TemporalServer.start, dynamic_config=limit, ui=False, in_memory=True)) as server:
            environment.setenv("TEMPORAL_ADDRESS", server.address)
            client = await Client.connect(server.address)
            async with temporal_sink(CONTEXT) as sink:
                await sink.deliver(message(start(workflow_id, "ContinuesOnSignal", workflow_id), payload=1))
                signal = {"operation": "signal_workflow", "workflow_id": workflow_id, "signal": "add"}
                await sink.deliver(message(signal))
                await sink.deliver(message(signal | {"signal": "go_on"}))
                refused = message(signal)
                outcome = await sink.deliver(refused)
                assert isinstance(outcome, Failed), outcome
                assert "exceeded workflow execution limit for signal" in outcome.detail
                async with serving(Worker(client, task_queue=workflow_id, workflows=[ContinuesOnSignal])):

                    async def again() -> Outcome:
                        return await sink.deliver(refused._replace(setbacks=1))

                    await eventually(again, lambda outcome: isinstance(outcome, Delivered))

    async def test_search_attribute_that_is_not_registered_yet(self, sink: Sink, workflow_id: str) -> None:
        outcome = await sink.deliver(message(start(workflow_id, search_attributes={"NobodyKnowsThis": 1})))
        assert isinstance(outcome, Failed), outcome
        assert "NobodyKnowsThis" in outcome.detail

    async def test_search_attribute_of_the_servers_own_can_never_be_set(self, sink: Sink, workflow_id: str) -> None:
        outcome = await sink.deliver(message(start(workflow_id, search_attributes={"WorkflowType": "x"})))
        assert isinstance(outcome, Rejected), outcome


class TestARefusal:
    async def test_of_one_operation_ends_its_messages_and_stops_no_other(self, database: str, proxy: GrpcProxy) -> None:
        def script(name: str, _request: object) -> Answer:
            return (
                GrpcRefusal(PERMISSION_DENIED, "Request unauthorized.") if name == "SignalWorkflowExecution" else None
            )

        proxy.script = script
        await fetch(database, "select outbox.signal_workflow('w-' || n, 's', '1') from generate_series(1, 30) n")
        await fetch(
            database,
            "select outbox.start_workflow('Nothing', gen_random_uuid()::text, '1', task_queue => 'unserved') "
            "from generate_series(1, 40) n",
        )
        async with running_worker(database, factory=temporal_sink, max_attempts=3) as relay:
            await relay.wait_completed(40)
            await relay.log.wait_until(lambda: len(relay.log.of(Buried)) >= 30 or None)
            assert not relay.log.of(Held)
        assert await counts(database) == {"message": 0, "history": 40, "dead_letter": 30}

    async def test_of_everything_is_the_credentials_fault_and_burns_no_attempt(
        self, database: str, proxy: GrpcProxy
    ) -> None:
        def script(name: str, _request: object) -> Answer:
            return None if name == "GetSystemInfo" else GrpcRefusal(PERMISSION_DENIED, "Request unauthorized.")

        proxy.script = script
        starts = "select outbox.start_workflow('Nothing', gen_random_uuid()::text, '1', task_queue => 'unserved') "
        await fetch(database, starts + "from generate_series(1, 20)")
        async with running_worker(database, factory=temporal_sink, max_attempts=1) as relay:
            await relay.log.wait_until(lambda: len(relay.log.of(Held)) >= 3 or None)
            assert not relay.log.of(Buried)
            proxy.script = lambda _name, _request: None
            await relay.wait_completed(20)

    async def test_to_describe_the_namespace_is_no_word_on_deliveries(self, proxy: GrpcProxy, workflow_id: str) -> None:
        def script(name: str, _request: object) -> Answer:
            return GrpcRefusal(PERMISSION_DENIED, "no") if name == "DescribeNamespace" else None

        proxy.script = script
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.probe(), Unclear)
            assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)


class TestTheTeamsCodec:
    @pytest.mark.parametrize(
        "fault", ["RuntimeError", "NotImplementedError", "RecursionError", "ValueError", "KeyError"]
    )
    async def test_that_raises_fails_the_message_even_as_the_first_of_a_worker(
        self, temporal_server: SharedServer, environment: pytest.MonkeyPatch, workflow_id: str, fault: str
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        environment.setenv("OUTBOX_TEMPORAL_PAYLOAD_CODEC", "tests.temporal.codec:RaisingCodec")
        async with temporal_sink(CONTEXT) as sink:
            for _ in range(2):
                outcome = await sink.deliver(message(start(workflow_id), payload={"card": "4111", "raise": fault}))
                assert isinstance(outcome, Failed), outcome
                assert outcome.kind == fault
                assert "tests.temporal.codec, encode, line" in outcome.detail
                assert "4111" not in outcome.detail, "the text of an error may quote a payload"

    async def test_that_raises_for_some_messages_holds_no_other(
        self, database: str, temporal_server: SharedServer, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        environment.setenv("OUTBOX_TEMPORAL_PAYLOAD_CODEC", "tests.temporal.codec:RaisingCodec")
        starts = "select outbox.start_workflow('Nothing', gen_random_uuid()::text, $1::json, task_queue => 'unserved') "
        await fetch(database, starts + "from generate_series(1, 30)", '{"raise": "RuntimeError"}')
        await fetch(database, starts + "from generate_series(1, 40)", "{}")
        async with running_worker(database, factory=temporal_sink, max_attempts=2) as relay:
            await relay.wait_completed(40)
            await relay.log.wait_until(lambda: len(relay.log.of(Buried)) >= 30 or None)
            assert not relay.log.of(Held)


def refusal(status: RPCStatusCode, detail: object) -> RPCError:
    """An error of the server with a detail, as the dev server never sends it."""
    packed = Status(code=status.value, message="x")
    packed.details.add().Pack(detail)
    return RPCError("x", status, packed.SerializeToString())


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize(
    ("detail", "own", "others"),
    [
        (NamespaceNotActiveFailure(), unavailable("closed"), (Failed, None)),
        (NamespaceInvalidStateFailure(), unavailable("closed"), (Failed, None)),
        (WorkflowNotReadyFailure(), (Throttled, "message"), (Throttled, "message")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ProtobufMessage) else "",
)
def test_details_of_a_failed_precondition_say_what_it_concerns(
    detail: ProtobufMessage, own: object, others: object, foreign: bool
) -> None:
    outcome = outcome_of(refusal(RPCStatusCode.FAILED_PRECONDITION, detail), foreign_namespace=foreign)
    assert shape(outcome) == (others if foreign else own)
