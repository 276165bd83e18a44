"""The adapter against a real Temporal server: what each answer of the server means for a message."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from anyio import to_thread
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.worker import Worker

from outbox.model.errors import ConfigurationError
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected, Sink, SinkContext, Throttled, Unavailable, Unknown
from outbox_temporal.sdk.worker import serving
from outbox_temporal.servers.postgres import running
from outbox_temporal.servers.temporal import TemporalServer
from outbox_temporal.sink import settings_report, temporal_sink
from tests.support.eventually import eventually
from tests.support.shared import SharedServer
from tests.temporal.conftest import CONTEXT, message, start
from tests.temporal.definitions import Collects, ContinuesOnce, Echo


async def started_event(client: Client, workflow_id: str):
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    return history.events[0].workflow_execution_started_event_attributes


async def runs(client: Client, workflow_id: str) -> int:
    """How many executions Temporal lists for an id, once it lists any."""

    async def count() -> int:
        return len([e async for e in client.list_workflows(f"WorkflowId = '{workflow_id}'")])

    return await eventually(count, lambda n: n > 0)


class TestAStart:
    async def test_passes_the_payloads_bytes_untouched(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        raw = '{ "b":1.10,  "a" : "\\u00e9", "b":2 }'
        outcome = await sink.deliver(message(start(workflow_id), raw=raw))
        assert isinstance(outcome, Delivered)
        event = await started_event(temporal_client, workflow_id)
        assert event.input.payloads[0].data == raw.encode()
        assert event.input.payloads[0].metadata["encoding"] == b"json/plain"
        assert outcome.run_id == event.original_execution_run_id
        assert outcome.workflow_id == workflow_id

    @pytest.mark.parametrize(
        ("arguments", "payload", "expected"),
        [
            ("none", ..., []),
            ("many", [1, "two"], [b"1", b'"two"']),
            ("one", [1, 2], [b"[1,2]"]),
            (None, None, [b"null"]),
        ],
    )
    async def test_gives_the_requested_arguments(
        self,
        sink: Sink,
        temporal_client: Client,
        workflow_id: str,
        arguments: str,
        payload: object,
        expected: list[bytes],
    ) -> None:
        target = start(workflow_id) | ({"arguments": arguments} if arguments else {})
        assert isinstance(await sink.deliver(message(target, payload)), Delivered)
        event = await started_event(temporal_client, workflow_id)
        assert [p.data for p in event.input.payloads] == expected

    async def test_carries_identity_memo_headers_and_options(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        sent = message(
            start(
                workflow_id,
                memo={"plan": {"tier": None}},
                execution_timeout_s=3600.5,
                run_timeout_s=1800,
                task_timeout_s=7,
                start_delay_s=90,
                retry_policy={"initial_interval_s": 2, "maximum_attempts": 3, "non_retryable_error_types": ["Fatal"]},
                search_attributes={"CustomKeywordField": {"type": "Keyword", "value": "gold"}},
                summary="one line",
            ),
            headers={"traceparent": "00-1-2-01", "tenant": "acme"},
        )
        outcome = await sink.deliver(sent)
        # The dev server registers no custom attribute. It may be registered later, so the message is tried again.
        assert isinstance(outcome, Failed)
        assert "CustomKeywordField" in outcome.detail
        target = start(
            workflow_id, memo={"plan": {"tier": None}}, execution_timeout_s=3600.5, start_delay_s=90, summary="x"
        )
        target["retry_policy"] = {
            "initial_interval_s": 2,
            "maximum_attempts": 3,
            "non_retryable_error_types": ["Fatal"],
        }
        sent = message(target, headers={"traceparent": "00-1-2-01", "tenant": "acme"})
        assert isinstance(await sink.deliver(sent), Delivered)
        event = await started_event(temporal_client, workflow_id)
        assert event.identity == CONTEXT.identity
        assert event.memo.fields["outbox_message_id"].data == f'"{sent.message_id}"'.encode()
        assert event.memo.fields["plan"].data == b'{"tier":null}'
        assert event.header.fields["_tracer-data"].data == b'{"traceparent":"00-1-2-01"}'
        assert event.header.fields["tenant"].data == b'"acme"'
        assert event.workflow_execution_timeout.ToMilliseconds() == 3_600_500
        assert event.first_workflow_task_backoff.ToSeconds() == 90
        assert event.retry_policy.maximum_attempts == 3
        assert list(event.retry_policy.non_retryable_error_types) == ["Fatal"]

    async def test_repeated_with_the_same_message_id_is_the_same_run(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        sent = message(start(workflow_id))
        first, second = await sink.deliver(sent), await sink.deliver(sent)
        assert first == second
        assert isinstance(second, Delivered)
        assert not second.duplicate
        assert await runs(temporal_client, workflow_id) == 1

    async def test_repeated_after_its_workflow_closed_is_the_same_run(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        sent = message(start(workflow_id))
        first = await sink.deliver(sent)
        await temporal_client.get_workflow_handle(workflow_id).terminate()
        assert await sink.deliver(sent) == first
        assert await runs(temporal_client, workflow_id) == 1

    @pytest.mark.parametrize("closed", [False, True])
    async def test_of_another_messages_workflow_is_a_duplicate(
        self, sink: Sink, temporal_client: Client, workflow_id: str, closed: bool
    ) -> None:
        first = await sink.deliver(message(start(workflow_id)))
        if closed:
            await temporal_client.get_workflow_handle(workflow_id).terminate()
        second = await sink.deliver(message(start(workflow_id)))
        assert isinstance(first, Delivered)
        assert second == Delivered(workflow_id, first.run_id, duplicate=True)

    async def test_of_another_messages_workflow_is_rejected_when_strict(self, sink: Sink, workflow_id: str) -> None:
        sent = message(start(workflow_id, on_duplicate="reject"))
        first = await sink.deliver(sent)
        assert isinstance(first, Delivered)
        assert await sink.deliver(sent) == first
        other = await sink.deliver(message(start(workflow_id, on_duplicate="reject")))
        assert isinstance(other, Rejected)
        assert other.kind == "DUPLICATE"

    @pytest.mark.parametrize("strict", [False, True])
    async def test_repeated_after_continue_as_new_is_known_by_its_memo(
        self, sink: Sink, temporal_client: Client, workflow_id: str, strict: bool
    ) -> None:
        more = {"on_duplicate": "reject"} if strict else {}
        sent = message(start(workflow_id, "ContinuesOnce", workflow_id, **more), payload=True)
        first = await sink.deliver(sent)
        assert isinstance(first, Delivered)
        async with serving(Worker(temporal_client, task_queue=workflow_id, workflows=[ContinuesOnce])):

            async def current_run() -> str:
                return (await temporal_client.get_workflow_handle(workflow_id).describe()).run_id

            second_run = await eventually(current_run, lambda run_id: run_id != first.run_id)
            repeated = await sink.deliver(sent._replace(deliveries=2))
            assert repeated == Delivered(workflow_id, second_run)
            other = await sink.deliver(message(start(workflow_id, "ContinuesOnce", workflow_id), deliveries=2))
            assert other == Delivered(workflow_id, second_run, duplicate=True)

    async def test_may_use_the_existing_run_once(self, sink: Sink, temporal_client: Client, workflow_id: str) -> None:
        first = await sink.deliver(message(start(workflow_id)))
        sent = message(start(workflow_id, id_conflict_policy="use_existing"))
        assert await sink.deliver(sent) == first
        await temporal_client.get_workflow_handle(workflow_id).terminate()
        assert await sink.deliver(sent) == first
        assert await runs(temporal_client, workflow_id) == 1

    async def test_may_reuse_the_id_of_a_closed_workflow(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        first = await sink.deliver(message(start(workflow_id)))
        await temporal_client.get_workflow_handle(workflow_id).terminate()
        second = await sink.deliver(message(start(workflow_id, id_reuse_policy="allow_duplicate")))
        assert isinstance(first, Delivered)
        assert isinstance(second, Delivered)
        assert second.run_id != first.run_id

    async def test_in_a_namespace_of_the_messages_own(self, workflow_id: str, environment: pytest.MonkeyPatch) -> None:
        async with running(partial(TemporalServer.start, namespaces=["other"], ui=False, in_memory=True)) as server:
            environment.setenv("TEMPORAL_ADDRESS", server.address)
            environment.setenv("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", "other")
            async with temporal_sink(CONTEXT) as sink:
                assert isinstance(await sink.deliver(message(start(workflow_id, namespace="other"))), Delivered)
            client = await Client.connect(server.address, namespace="other")
            assert (await client.get_workflow_handle(workflow_id).describe()).status is WorkflowExecutionStatus.RUNNING


class TestASignal:
    async def test_arrives_once_however_often_it_is_delivered(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        await sink.deliver(message(start(workflow_id, "Collects", workflow_id), payload="name"))
        add = {"operation": "signal_workflow", "workflow_id": workflow_id, "signal": "add"}
        once, stop = message(add, payload={"n": 1}), message(add, payload="stop")
        for sent in (once, once, stop, once):
            assert isinstance(await sink.deliver(sent), Delivered)
        async with serving(Worker(temporal_client, task_queue=workflow_id, workflows=[Collects])):
            assert await temporal_client.get_workflow_handle(workflow_id).result() == ["name", {"n": 1}, "stop"]
        assert isinstance(await sink.deliver(once), Delivered), "the server remembers it after the close"
        late = await sink.deliver(message(add, payload="late"))
        assert isinstance(late, Failed)
        assert late.kind == "COMPLETED"

    async def test_that_overtakes_its_start_fails_and_is_not_lost(self, sink: Sink, workflow_id: str) -> None:
        target = {"operation": "signal_workflow", "workflow_id": workflow_id, "signal": "add"}
        outcome = await sink.deliver(message(target, payload=1))
        assert isinstance(outcome, Failed)
        assert outcome.kind == "NOT_FOUND"

    async def test_with_start_starts_and_signals_once(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        target = start(workflow_id, "Collects", workflow_id) | {
            "operation": "signal_with_start_workflow",
            "signal": "add",
        }
        sent = message(target, payload={"args": ["name"], "signal_args": ["stop"]})
        first = await sink.deliver(sent)
        assert isinstance(first, Delivered)
        assert await sink.deliver(sent) == first
        async with serving(Worker(temporal_client, task_queue=workflow_id, workflows=[Collects])):
            assert await temporal_client.get_workflow_handle(workflow_id).result() == ["name", "stop"]
        repeated = await sink.deliver(sent)
        assert isinstance(repeated, Delivered)
        assert repeated.run_id == first.run_id
        other = await sink.deliver(message(target, payload={"args": [], "signal_args": ["late"]}))
        assert isinstance(other, Rejected), "a signal that no workflow received is not a delivered duplicate"


class TestAnEnd:
    async def test_cancel_may_be_repeated_also_after_the_close(
        self, sink: Sink, temporal_client: Client, workflow_id: str
    ) -> None:
        await sink.deliver(message(start(workflow_id)))
        sent = message({"operation": "cancel_workflow", "workflow_id": workflow_id, "reason": "test"})
        assert isinstance(await sink.deliver(sent), Delivered)
        assert isinstance(await sink.deliver(sent), Delivered)
        another = message({"operation": "cancel_workflow", "workflow_id": workflow_id})
        assert isinstance(await sink.deliver(another), Delivered)
        history = await temporal_client.get_workflow_handle(workflow_id).fetch_history()
        kinds = [event.event_type for event in history.events]
        assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED) == 1
        await temporal_client.get_workflow_handle(workflow_id).terminate()
        assert isinstance(await sink.deliver(sent), Delivered)

    async def test_terminate_may_be_repeated(self, sink: Sink, temporal_client: Client, workflow_id: str) -> None:
        await sink.deliver(message(start(workflow_id)))
        sent = message({"operation": "terminate_workflow", "workflow_id": workflow_id, "reason": "test"})
        assert isinstance(await sink.deliver(sent), Delivered)
        assert isinstance(await sink.deliver(sent), Delivered)
        status = (await temporal_client.get_workflow_handle(workflow_id).describe()).status
        assert status is WorkflowExecutionStatus.TERMINATED

    @pytest.mark.parametrize("operation", ["cancel_workflow", "terminate_workflow"])
    async def test_of_an_unknown_workflow_fails_and_is_not_lost(
        self, sink: Sink, workflow_id: str, operation: str
    ) -> None:
        outcome = await sink.deliver(message({"operation": operation, "workflow_id": workflow_id}))
        assert isinstance(outcome, Failed)


class TestTheErrorTable:
    async def test_what_the_server_finds_too_long_is_rejected(self, sink: Sink, workflow_id: str) -> None:
        outcome = await sink.deliver(message(start(workflow_id, "x" * 1001)))
        assert isinstance(outcome, Rejected)
        assert outcome.kind == "INVALID_ARGUMENT"

    @pytest.mark.parametrize(("mebibytes", "kind"), [(2.1, "INVALID_ARGUMENT"), (4.1, "PAYLOAD_TOO_LARGE")])
    async def test_a_payload_over_a_limit_is_rejected(
        self, sink: Sink, workflow_id: str, mebibytes: float, kind: str
    ) -> None:
        outcome = await sink.deliver(message(start(workflow_id), payload="x" * int(mebibytes * 2**20)))
        assert isinstance(outcome, Rejected), outcome
        assert outcome.kind == kind

    async def test_a_missing_namespace_of_the_connection_holds_the_relay(
        self, temporal_server: SharedServer, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        environment.setenv("TEMPORAL_NAMESPACE", "missing")
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.deliver(message(start(workflow_id))), Unavailable)
            probed = await sink.probe()
        assert isinstance(probed, Unavailable)
        assert "missing" in probed.detail

    async def test_a_missing_namespace_of_one_message_fails_that_message_only(
        self, temporal_server: SharedServer, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        environment.setenv("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", "miss*")
        async with temporal_sink(CONTEXT) as sink:
            outcome = await sink.deliver(message(start(workflow_id, namespace="missing")))
            assert isinstance(outcome, Failed)
            assert await sink.probe() is None

    async def test_a_throttled_namespace_slows_the_relay(self, environment: pytest.MonkeyPatch) -> None:
        limits = {"frontend.namespaceRPS": 2, "frontend.namespaceBurstRatio": 1.0}
        async with running(partial(TemporalServer.start, dynamic_config=limits, ui=False, in_memory=True)) as server:
            environment.setenv("TEMPORAL_ADDRESS", server.address)
            async with temporal_sink(CONTEXT) as sink:
                outcomes = []

                async def deliver() -> None:
                    outcomes.append(await sink.deliver(message(start(f"wf-{uuid4()}"))))

                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(deliver)
        throttled = [outcome for outcome in outcomes if isinstance(outcome, Throttled)]
        assert throttled
        assert {(outcome.kind, outcome.scope) for outcome in throttled} == {("RPS_LIMIT", "sink")}

    async def test_an_unreachable_server_is_unavailable_and_found_again(
        self, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        async with running(partial(TemporalServer.start, ui=False)) as server:
            environment.setenv("TEMPORAL_ADDRESS", server.address)
            await to_thread.run_sync(server.stop)
            async with temporal_sink(SinkContext("test", deliver_timeout_s=4.0)) as sink:
                assert isinstance(await sink.deliver(message(start(workflow_id))), Unavailable)
                assert isinstance(await sink.probe(), Unavailable)
                await to_thread.run_sync(server.restart)
                assert await eventually(sink.probe, lambda outcome: outcome is None) is None
                assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)

    async def test_a_server_killed_during_calls_leaves_no_outcome_in_doubt_for_ever(
        self, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        async with running(partial(TemporalServer.start, ui=False)) as server:
            environment.setenv("TEMPORAL_ADDRESS", server.address)
            async with temporal_sink(SinkContext("test", deliver_timeout_s=4.0)) as sink:
                sent = [message(start(f"{workflow_id}-{n}")) for n in range(100)]
                outcomes: dict[int, object] = {}

                async def deliver(n: int) -> None:
                    outcomes[n] = await sink.deliver(sent[n])

                async with anyio.create_task_group() as tasks:
                    for n in range(100):
                        tasks.start_soon(deliver, n)

                    async def answered() -> int:
                        return len(outcomes)

                    await eventually(answered, lambda n: n >= 5)
                    server.kill()
                assert {type(outcome) for outcome in outcomes.values()} <= {Delivered, Unavailable, Unknown}
                assert any(isinstance(outcome, Unavailable | Unknown) for outcome in outcomes.values())
                await to_thread.run_sync(server.restart)
                await eventually(sink.probe, lambda outcome: outcome is None)
                again = [await in_the_end(sink, one._replace(deliveries=2)) for one in sent]
                assert {type(outcome) for outcome in again} == {Delivered}
                assert not any(outcome.duplicate for outcome in again if isinstance(outcome, Delivered))


async def in_the_end(sink: Sink, message: Message) -> Outcome:
    """The outcome once there is one: a server that has just been started may be too slow for the first calls."""
    while isinstance(outcome := await sink.deliver(message), Unknown | Unavailable):
        pass
    return outcome


class TestSettingsThatCannotBeUsed:
    """They end the worker at its start: nothing is tried, and no attempt burnt, for their sake."""

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            *(
                ("TEMPORAL_ADDRESS", address, f"TEMPORAL_ADDRESS is {address!r}: write host:port")
                for address in (
                    "127.0.0.1:abc",
                    "host:99999",
                    "host:0",
                    "my host:7233",
                    " a:7233",
                    "host",
                    "http://a:1",
                )
            ),
            ("TEMPORAL_TLS", "off", "TEMPORAL_TLS is 'off': write true or false"),
            ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "/nonexistent", "No such file or directory: '/nonexistent'"),
            ("TEMPORAL_TLS_CLIENT_CERT_PATH", __file__, "of Temporal's client certificate one half is missing"),
        ],
    )
    async def test_are_named_by_the_worker_and_by_outbox_config(
        self, environment: pytest.MonkeyPatch, name: str, value: str, said: str
    ) -> None:
        environment.setenv(name, value)
        with pytest.raises(ConfigurationError) as raised:
            async with temporal_sink(CONTEXT):
                pass
        assert said in str(raised.value)
        assert [said in fault for fault in settings_report.read().faults] == [True]

    async def test_that_show_only_when_it_connects_burn_no_attempt(
        self, environment: pytest.MonkeyPatch, tmp_path: Path, workflow_id: str
    ) -> None:
        """A file that is no certificate."""
        nonsense = tmp_path / "nonsense"
        nonsense.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        environment.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
        for half in ("CERT", "KEY"):
            environment.setenv(f"TEMPORAL_TLS_CLIENT_{half}_PATH", str(nonsense))
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.deliver(message(start(workflow_id))), Unavailable)
            assert isinstance(await sink.probe(), Unavailable)

    async def test_an_empty_variable_is_not_set(
        self, temporal_server: SharedServer, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        for name in ("TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_TLS", "TEMPORAL_PROFILE"):
            environment.setenv(name, "")
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.deliver(message(start(workflow_id))), Delivered)
        shown = {setting.name: (setting.value, setting.origin) for setting in settings_report.read().settings}
        assert shown["TEMPORAL_NAMESPACE"] == ("default", "default")


class TestTheTeamsCodec:
    async def test_hides_the_payload_from_the_server_and_not_from_the_worker(
        self, temporal_server: SharedServer, environment: pytest.MonkeyPatch, workflow_id: str
    ) -> None:
        environment.setenv("TEMPORAL_ADDRESS", temporal_server.address)
        environment.setenv("OUTBOX_TEMPORAL_PAYLOAD_CODEC", "tests.temporal.codec:ReversingCodec")
        async with temporal_sink(CONTEXT) as sink:
            target = start(workflow_id, "Echo", workflow_id, memo={"secret": "hidden"})
            assert isinstance(await sink.deliver(message(target, payload={"secret": 42})), Delivered)
        plain = await Client.connect(temporal_server.address)
        described = await plain.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace="default", execution=WorkflowExecution(workflow_id=workflow_id))
        )
        assert b"hidden" not in described.SerializeToString()
        event = await started_event(plain, workflow_id)
        assert b"secret" not in event.input.payloads[0].data
        from outbox_temporal.sdk.client import connect

        client = await connect()
        async with serving(Worker(client, task_queue=workflow_id, workflows=[Echo])):
            assert await client.get_workflow_handle(workflow_id).result() == [{"secret": 42}, None]

    @pytest.mark.parametrize(
        "reference", ["tests.temporal.codec:missing", "no.such.module:x", "tests.temporal.codec:not_a_codec"]
    )
    async def test_named_wrongly_is_a_configuration_error(
        self, environment: pytest.MonkeyPatch, reference: str
    ) -> None:
        environment.setenv("OUTBOX_TEMPORAL_PAYLOAD_CODEC", reference)
        with pytest.raises(ConfigurationError, match="OUTBOX_TEMPORAL_PAYLOAD_CODEC"):
            async with temporal_sink(CONTEXT):
                pass


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TEMPORAL_CONFIG_FILE", "/nowhere/temporal.toml", "there is no such file"),
        ("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "true", "not supported"),
        ("TEMPORAL_PROFILE", "missing", "cannot be used"),
        ("OUTBOX_TEMPORAL_COMPRESSION", "zip", "OUTBOX_TEMPORAL_COMPRESSION"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(
    environment: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=says):
        async with temporal_sink(CONTEXT):
            pass


@pytest.mark.parametrize(
    ("target", "kind", "says"),
    [
        (None, "NO_TARGET", "start_workflow"),
        ({"operation": "start"}, "INVALID_TARGET", "target.operation"),
        ({"operation": "start_workflow", "workflow_id": "x"}, "INVALID_TARGET", "needs workflow"),
        (start("x", surprise=1), "INVALID_TARGET", "target.surprise"),
        (start("x", retry_policy={"maximum_attempts": "3"}), "INVALID_TARGET", "target.retry_policy.maximum_attempts"),
        (start("x", retry_policy={"maximum_atempts": 3}), "INVALID_TARGET", "target.retry_policy.maximum_atempts"),
        (
            start("x", retry_policy={"maximum_attempts": 2**31}),
            "INVALID_TARGET",
            "target.retry_policy.maximum_attempts",
        ),
        (start("x", retry_policy={"maximum_interval_s": 0.5}), "INVALID_TARGET", "the initial one, which is 1 s"),
        (start("x", run_timeout_s=-1), "INVALID_TARGET", "target.run_timeout_s"),
        (start("x", run_timeout_s=1e30), "INVALID_TARGET", "target.run_timeout_s"),
        (start("x" * 1001), "INVALID_TARGET", "the limit is 1000"),
        (start("x", id_conflict_policy="terminate_existing"), "INVALID_TARGET", "contradicts"),
        (
            start("x", signal="s", id_conflict_policy="fail") | {"operation": "signal_with_start_workflow"},
            "INVALID_TARGET",
            "takes no id_conflict_policy fail",
        ),
        (start("x", arguments="many"), "INVALID_PAYLOAD", "array"),
        (start("x") | {"operation": "signal_with_start_workflow", "signal": "s"}, "INVALID_PAYLOAD", "signal_args"),
    ],
)
async def test_a_target_that_makes_no_sense_is_rejected_with_its_reason(
    sink: Sink, target: dict | None, kind: str, says: str
) -> None:
    outcome = await sink.deliver(message(target, payload={"not": "a list"}))
    assert isinstance(outcome, Rejected)
    assert outcome.kind == kind
    assert says in outcome.detail


@pytest.mark.parametrize("policy", ["use_existing", "terminate_existing"])
async def test_signal_with_start_goes_by_its_conflict_policy(
    sink: Sink, temporal_client: Client, workflow_id: str, policy: str
) -> None:
    """It was sent without one, and signalled the running workflow in every case."""
    other = await sink.deliver(message(start(workflow_id)))
    target = start(workflow_id, signal="s", id_conflict_policy=policy, id_reuse_policy="allow_duplicate")
    outcome = await sink.deliver(message(target | {"operation": "signal_with_start_workflow"}, raw="{}"))
    assert isinstance(other, Delivered)
    assert isinstance(outcome, Delivered), outcome
    assert (outcome.run_id == other.run_id) == (policy == "use_existing")
    first = await temporal_client.get_workflow_handle(workflow_id, run_id=other.run_id).describe()
    assert (first.status is WorkflowExecutionStatus.TERMINATED) == (policy == "terminate_existing")


async def test_missing_task_queue_may_be_this_workers_fault_and_buries_nothing_at_once(sink: Sink) -> None:
    outcome = await sink.deliver(message(start("x", task_queue="")))
    assert isinstance(outcome, Failed)
    assert (outcome.kind, "OUTBOX_TEMPORAL_TASK_QUEUE" in outcome.detail) == ("NO_TASK_QUEUE", True)
