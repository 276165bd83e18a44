"""What a producer wrote reaches Temporal byte for byte: values are cut out of the text, never read and written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import (
    SignalWithStartWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.converter import DataConverter

from outbox.model.message import Message
from outbox.model.sink import Delivered, Rejected, Sink
from outbox_temporal.sink.payloads import InvalidHeaders, InvalidMessage, header, json_payload
from outbox_temporal.sink.requests import Requests
from outbox_temporal.target.json_text import Uncut, elements, members
from outbox_temporal.target.table import Routes
from outbox_temporal.target.target import Command, Target, parse
from tests.temporal.codec import ReversingCodec
from tests.temporal.conftest import message

HOSTILE = [
    "18446744073709551616",
    "1.10",
    "0.1234567890123456789",
    "-0",
    "1E+2",
    "1e400",
    '{"a":1,"a":2}',
    '{ "b" : [ ] , "a":{} }',
    r'"\ud800"',
    r'"\u00e9\/\u0000"',
    '"ü, ] } \\" :"',
    "null",
    "true",
    "9" * 5000,
    "[" * 300 + "]" * 300,
]
SPACE = st.text(alphabet=" \t\n\r", max_size=3)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
STRINGS = st.from_regex(r'"([^"\\\x00-\x1f\ud800-\udfff]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"', fullmatch=True)


def _array(parts: list[tuple[str, str, str]]) -> str:
    return "[" + ",".join(before + text + after for before, text, after in parts) + "]"


def _object(parts: list[tuple[str, str, str, str]]) -> str:
    return "{" + ",".join(f"{before}{name}{after}:{before}{text}{after}" for before, name, text, after in parts) + "}"


VALUES = st.recursive(
    st.sampled_from(HOSTILE) | NUMBERS | STRINGS,
    lambda inner: (
        st.lists(st.tuples(SPACE, inner, SPACE), max_size=3).map(_array)
        | st.lists(st.tuples(SPACE, STRINGS, inner, SPACE), max_size=3).map(_object)
    ),
    max_leaves=5,
)


@given(st.lists(st.tuples(SPACE, VALUES, SPACE), max_size=4), SPACE)
def test_elements_of_any_array_are_cut_out_as_they_stand(parts: list[tuple[str, str, str]], space: str) -> None:
    assert elements(space + _array(parts) + space) == [text for _, text, _ in parts]


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.tuples(SPACE, VALUES, SPACE), max_size=4))
def test_members_of_any_object_are_cut_out_as_they_stand(parts: dict[str, tuple[str, str, str]]) -> None:
    written = ",".join(
        f"{before}{json.dumps(name)}{after}:{before}{text}{after}" for name, (before, text, after) in parts.items()
    )
    assert members("{" + written + "}") == {name: text for name, (_, text, _) in parts.items()}


@pytest.mark.parametrize("text", ["", " ", "1", "[", "[1", "[1 2]", "[1,", "[,1]", "[1,]", '["a]', "nul", "]"])
def test_what_is_no_array_is_said(text: str) -> None:
    with pytest.raises(Uncut):
        elements(text)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"', '{"a" 1}', '{"a":', '{"a":1', "{1:2}", r'{"\ud800":1}', '{"a":1 "b":2}']
)
def test_what_is_no_object_is_said(text: str) -> None:
    with pytest.raises(Uncut):
        members(text)


def test_nesting_without_end_is_said() -> None:
    with pytest.raises(Uncut, match="nested too deeply"):
        elements("[" * 100_000 + "]" * 100_000)


def written(operation: str, **parts: str) -> Message:
    """A message with these texts as target, payload and headers."""
    more = "".join(f',"{name}":{parts[name]}' for name in ("arguments", "memo", "search_attributes") if name in parts)
    target = f'{{"operation":"{operation}","workflow":"W","signal":"s","workflow_id":"w","task_queue":"q"{more}}}'
    return message(None, raw=parts.get("payload"))._replace(target=target, headers=parts.get("headers", "{}"))


def command_of(sent: Message) -> Command:
    command = parse(sent.target or "")
    assert isinstance(command, Command), command
    return command


@pytest.fixture(params=[False, True], ids=["plain", "with a codec"])
def requests(request: pytest.FixtureRequest) -> Requests:
    converter = DataConverter(payload_codec=ReversingCodec()) if request.param else DataConverter.default
    return Requests(namespace="default", identity="me", task_queue=None, converter=converter)


def data(payload: Payload) -> str:
    """A payload's bytes as they were before the codec."""
    if payload.metadata["encoding"] == b"binary/reversed":
        payload = Payload.FromString(payload.data[::-1])
    return payload.data.decode()


@pytest.mark.parametrize("text", HOSTILE)
class TestAValueKeepsItsBytes:
    async def test_among_several_arguments(self, requests: Requests, text: str) -> None:
        for operation in ("start_workflow", "signal_workflow"):
            sent = written(operation, arguments='"many"', payload=f'[ "x" , {text}]')
            build = requests.start if operation == "start_workflow" else requests.signal
            request = await build(sent, command_of(sent))
            assert [data(payload) for payload in request.input.payloads] == ['"x"', text]

    async def test_in_both_arguments_of_signal_with_start(self, requests: Requests, text: str) -> None:
        sent = written("signal_with_start_workflow", payload=f'{{"args" : [{text}], "signal_args" : ["x", {text} ]}}')
        request = await requests.signal_with_start(sent, command_of(sent))
        assert [data(payload) for payload in request.input.payloads] == [text]
        assert [data(payload) for payload in request.signal_input.payloads] == ['"x"', text]

    async def test_in_memo_and_search_attributes(self, requests: Requests, text: str) -> None:
        attributes = f'{{"A":{text},"B":{{"type":"Double","value":{text}}}}}'
        sent = written("start_workflow", memo=f'{{"one": {text}}}', search_attributes=attributes)
        start = await requests.start(sent, command_of(sent))
        sent = written(
            "signal_with_start_workflow", payload="{}", memo=f'{{"one":{text}}}', search_attributes=attributes
        )
        both = await requests.signal_with_start(sent, command_of(sent))
        for request in (start, both):
            assert data(request.memo.fields["one"]) == text
            assert request.search_attributes.indexed_fields["A"].data.decode() == text
            assert request.search_attributes.indexed_fields["B"].data.decode() == text
            assert request.search_attributes.indexed_fields["B"].metadata["type"] == b"Double"

    def test_in_headers(self, text: str) -> None:
        fields = header(written("start_workflow", headers=f'{{"one" :{text} , "traceparent":"a\\u0062"}}')).fields
        assert fields["one"].data.decode() == text
        assert fields["_tracer-data"].data == b'{"traceparent":"a\\u0062"}'


@pytest.mark.parametrize("text", [text for text in HOSTILE if text[0] not in "[{n" and "ud800" not in text])
def test_a_value_that_a_route_picks_out_keeps_its_bytes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "outbox.toml"
    path.write_text(
        '[[route]]\ntopic = "test"\nworkflow = "W"\nworkflow_id = "w"\ntask_queue = "q"\nmemo = {v = ["{a.1}"]}\n'
    )
    target = Routes.load(path).target_of(message(None, raw=f'{{"a" : [1, {text} ]}}'))
    assert isinstance(target, Target)
    assert json_payload(target.memo["v"]).data.decode() == f"[{text}]"


@pytest.mark.parametrize("operation", ["start_workflow", "signal_with_start_workflow"])
@pytest.mark.parametrize("given", [{"summary": "s"}, {"details": "d"}, {"summary": "s", "details": "d"}])
async def test_nothing_that_a_person_wrote_passes_the_codec_by(operation: str, given: dict[str, str]) -> None:
    """As the SDK's client has it: what the UI shows of a workflow is encoded too."""
    converter = DataConverter(payload_codec=ReversingCodec())
    requests = Requests(namespace="default", identity="me", task_queue=None, converter=converter)
    more = "".join(f',"{name}":"{text}-secret"' for name, text in given.items())
    sent = written(operation, payload='{"args": ["secret"]}', memo='{"m": "secret"}')
    sent = sent._replace(target=(sent.target or "")[:-1] + more + "}")
    request = await requests.build(sent, command_of(sent))
    assert isinstance(request, StartWorkflowExecutionRequest | SignalWithStartWorkflowExecutionRequest)
    assert b"secret" not in request.SerializeToString()
    for name in ("summary", "details"):
        assert request.user_metadata.HasField(name) == (name in given)
    assert {name: data(getattr(request.user_metadata, name)) for name in given} == {
        name: f'"{text}-secret"' for name, text in given.items()
    }


@pytest.mark.parametrize("value", ["42", "null", "{}", "[]", "true"])
@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage"])
def test_trace_that_is_no_string_never_reaches_an_interceptor(name: str, value: str) -> None:
    with pytest.raises(InvalidHeaders, match=f"headers.{name} must be a string"):
        header(written("start_workflow", headers=f'{{"{name}": {value}}}'))


@pytest.mark.parametrize("operation", ["start_workflow", "signal_with_start_workflow"])
@pytest.mark.parametrize("name", ["outbox_message_id", r"\u006futbox_message_id"])
def test_memo_of_the_outbox_cannot_be_forged(operation: str, name: str) -> None:
    refused = parse(written(operation, memo=f'{{"{name}": "x"}}').target or "")
    assert isinstance(refused, Rejected)
    assert refused.detail.startswith("target.memo: outbox_message_id is the outbox's own")


@pytest.mark.parametrize("name", ["memo", r"m\u0065mo"])
def test_memo_with_an_escaped_name_is_the_memo(name: str) -> None:
    sent = written("start_workflow")
    target = (sent.target or "")[:-1] + f',"{name}":{{"a":1.10}}}}'
    command = parse(target)
    assert isinstance(command, Command)
    assert list(command.target.memo) == ["a"]


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"arguments": '"many"', "payload": "[" * 100_000 + "]" * 100_000}, "INVALID_PAYLOAD"),
        ({"arguments": '"many"', "payload": "5"}, "INVALID_PAYLOAD"),
        ({"headers": r'{"\ud800": 1}'}, "INVALID_HEADERS"),
        ({"headers": '{"traceparent": 42}'}, "INVALID_HEADERS"),
    ],
)
async def test_what_can_never_be_sent_says_why(parts: dict[str, str], kind: str) -> None:
    requests = Requests(namespace="default", identity="me", task_queue=None, converter=DataConverter.default)
    sent = written("start_workflow", **parts)
    with pytest.raises(InvalidMessage) as raised:
        await requests.start(sent, command_of(sent))
    assert raised.value.kind == kind


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"memo": r'{"\ud800": 1}'}, "target.memo"),
        ({"memo": "5"}, "target.memo"),
        ({"memo": "[" * 100_000 + "]" * 100_000}, "target"),
    ],
)
def test_target_that_can_never_be_sent_says_why(parts: dict[str, str], where: str) -> None:
    refused = parse(written("start_workflow", **parts).target or "")
    assert isinstance(refused, Rejected)
    assert refused.detail.startswith(f"{where}: ")


async def test_temporal_keeps_what_was_written(sink: Sink, temporal_client: Client, workflow_id: str) -> None:
    values = [text for text in HOSTILE if len(text) < 1000]
    sent = written("start_workflow", arguments='"many"', payload=f"[{', '.join(values)}]", memo=f'{{"m":{values[6]}}}')
    sent = sent._replace(target=(sent.target or "").replace('"w"', f'"{workflow_id}"'), headers=f'{{"h":{values[0]}}}')
    outcome = await sink.deliver(sent)
    assert isinstance(outcome, Delivered), outcome
    history = await temporal_client.get_workflow_handle(workflow_id).fetch_history()
    event = history.events[0].workflow_execution_started_event_attributes
    assert [payload.data.decode() for payload in event.input.payloads] == values
    assert event.memo.fields["m"].data.decode() == values[6]
    assert event.header.fields["h"].data.decode() == values[0]


async def test_fault_of_the_first_message_is_not_the_connections(sink: Sink) -> None:
    outcome = await sink.deliver(written("start_workflow", arguments='"many"', payload="5"))
    assert isinstance(outcome, Rejected)
    assert outcome.kind == "INVALID_PAYLOAD"


@pytest.mark.parametrize("value", ['"secret"', '{"secret": ["secret"]}', '["secret\\n: secret", 1]'])
async def test_refused_search_attribute_is_named_without_its_value(sink: Sink, workflow_id: str, value: str) -> None:
    """Temporal quotes the value, which may be personal data, and outcomes stand in logs, /status and dead letters."""
    sent = written("start_workflow", search_attributes=f'{{"TemporalChangeVersion":{value}}}')
    outcome = await sink.deliver(sent._replace(target=(sent.target or "").replace('"w"', f'"{workflow_id}"')))
    assert isinstance(outcome, Rejected), outcome
    assert "TemporalChangeVersion of type KeywordList" in outcome.detail
    assert "secret" not in outcome.detail
