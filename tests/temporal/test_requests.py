"""Starts are copied from those that were built before: nothing of one message may come with another."""

from __future__ import annotations

import orjson
import pytest
from temporalio.converter import DataConverter

from outbox.model.message import Message
from outbox.model.sink import Rejected
from outbox_temporal.sink.payloads import InvalidMessage
from outbox_temporal.sink.requests import Requests
from outbox_temporal.target.target import Command, parse
from tests.temporal.conftest import message, start


@pytest.fixture
def requests() -> Requests:
    return Requests(namespace="default", identity="me", task_queue=None, converter=DataConverter.default)


def command_of(sent: Message) -> Command:
    command = parse(sent.target or "")
    assert isinstance(command, Command), command
    return command


@pytest.mark.parametrize(
    "other",
    [
        {"arguments": "none"},
        {"arguments": "many"},
        {"memo": {"plan": 1}},
        {"summary": "one line"},
        {"task_queue": "elsewhere"},
        {"namespace": "elsewhere"},
        {"run_timeout_s": 5},
        {"retry_policy": {"maximum_attempts": 3}},
        {"search_attributes": {"a": 1}},
        {"id_reuse_policy": "allow_duplicate"},
        {"id_conflict_policy": "use_existing"},
        {"workflow": "Another"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_start_is_the_same_after_any_other_start(requests: Requests, other: dict[str, object]) -> None:
    plain = message(start("plain"), raw='{"n": 1}')
    special = message(start("special", **other), payload=[1], headers={"tenant": "acme"})
    fresh = Requests(namespace="default", identity="me", task_queue=None, converter=DataConverter.default)
    alone = await fresh.start(plain, command_of(plain))
    for _ in range(2):
        assert await requests.start(plain, command_of(plain)) == alone
        built = await requests.start(special, command_of(special))
        assert built.workflow_id == "special"
        assert built != alone
        assert "tenant" in built.header.fields


async def test_no_message_without_a_payload_gets_an_argument(requests: Requests) -> None:
    given, nothing = message(start("a"), raw="1"), message(start("b"))
    assert len((await requests.start(given, command_of(given))).input.payloads) == 1
    assert not (await requests.start(nothing, command_of(nothing))).HasField("input")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("1", "target"),
        ("not JSON", "target"),
        ('{"operation": "start_workflow", "workflow": "A"}', "target.workflow_id"),
        ('{"operation": "start_workflow", "workflow": "A", "workflow_id": ""}', "target.workflow_id"),
        ('{"operation": "start_workflow", "workflow": "A", "workflow_id": 5}', "target.workflow_id"),
        ('{"operation": "start_workflow", "workflow": "A", "workflow_id": "a\\u0000b"}', "target.workflow_id"),
        ('{"operation": "start_workflow", "workflow": "A", "workflow_id": "%s"}' % ("x" * 1001), "target.workflow_id"),
        ('{"operation": "start_workflow", "workflow_id": "a"}', "target"),
        ('{"operation": "start_workflow", "workflow": "A", "workflow_id": "a", "colour": 1}', "target.colour"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_each_time(text: str, where: str) -> None:
    for _ in range(2):
        refused = parse(text)
        assert isinstance(refused, Rejected)
        assert refused.detail.startswith(f"{where}:"), refused.detail


@pytest.mark.parametrize("field", ["memo", "search_attributes"])
def test_target_with_more_fields_than_500_is_refused(field: str) -> None:
    texts = [orjson.dumps(start("wf", **{field: dict.fromkeys(map(str, range(n)), 1)})).decode() for n in (500, 501)]
    assert isinstance(parse(texts[0]), Command)
    assert parse(texts[1]) == Rejected("INVALID_TARGET", f"target.{field}: has more than 500 fields")


async def test_more_arguments_or_headers_than_500_are_refused(requests: Requests) -> None:
    many = message(start("wf", arguments="many"), list(range(500)), headers=dict.fromkeys(map(str, range(500)), "x"))
    built = await requests.start(many, command_of(many))
    assert len(built.input.payloads) == len(built.header.fields) == 500
    for payload, headers in ([0] * 501, {}), ([], dict.fromkeys(map(str, range(501)), "x")):
        sent = message(start("wf", arguments="many"), payload, headers=headers)
        with pytest.raises(InvalidMessage, match="has more than 500"):
            await requests.start(sent, command_of(sent))


def test_an_empty_name_is_none() -> None:
    """Enqueue refuses it. A row that is written by hand may have it, and then it is the default for all."""
    command = parse(
        '{"operation": "signal_workflow", "workflow_id": "w", "signal": "s", "namespace": "", "run_id": ""}'
    )
    assert isinstance(command, Command)
    assert (command.target.namespace, command.target.run_id) == (None, None)


def test_targets_that_are_alike_keep_their_own_workflow_ids() -> None:
    texts = [f'{{"operation": "cancel_workflow", "workflow_id": "wf-{n}", "reason": "r"}}' for n in range(3)]
    commands = [command for command in map(parse, texts) if isinstance(command, Command)]
    assert [command.workflow_id for command in commands] == ["wf-0", "wf-1", "wf-2"]
    assert {command.target.reason for command in commands} == {"r"}
