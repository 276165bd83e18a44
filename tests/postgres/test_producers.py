"""What producers call: in their transaction, with their rights, and never a dead letter for a mistake."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import anyio
import asyncpg
import pytest
from asyncpg import Connection

from tests.support.sql import blocked_on, connected


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        yield connection


async def row(db: Connection, message_id: UUID) -> dict[str, Any]:
    found = dict(await db.fetchrow("select * from outbox.message where message_id = $1", message_id))
    return found | {name: json.loads(found[name]) for name in ("target", "headers") if found[name]}


async def count(db: Connection) -> int:
    return await db.fetchval("select count(*) from outbox.message")


# What each function writes


async def test_enqueue_writes_every_argument(db: Connection) -> None:
    message_id, at = uuid4(), datetime(2100, 1, 1, tzinfo=UTC)
    target = '{"operation": "cancel_workflow", "workflow_id": "w"}'
    returned = await db.fetchval(
        "select outbox.enqueue('topic', '{}', 'key', '{\"h\": 1}', $1, $2, 'dedup', $3, 4)", target, message_id, at
    )
    written = await row(db, message_id)
    assert returned == message_id
    assert written["topic"] == "topic"
    assert written["payload"] == "{}"
    assert written["key"] == "key"
    assert written["headers"] == {"h": 1}
    assert written["target"] == json.loads(target)
    assert written["dedup_key"] == "dedup"
    assert written["available_at"] == written["due_at"] == at
    assert written["priority"] == 4
    assert (written["deliveries"], written["attempts"], written["errors"]) == (0, 0, "[]")
    assert written["lease_token"] is written["claimed_at"] is written["worker_id"] is None


async def test_topic_is_all_that_enqueue_needs(db: Connection) -> None:
    written = await row(db, await db.fetchval("select outbox.enqueue('topic')"))
    assert written["payload"] is written["key"] is written["target"] is written["dedup_key"] is None
    assert written["headers"] == {}
    assert written["due_at"] == written["available_at"] == written["created_at"]


START = {"operation": "start_workflow", "workflow": "W", "workflow_id": "w-1"}
SIGNAL = {"operation": "signal_workflow", "workflow_id": "w-1", "signal": "s"}
BOTH = {"operation": "signal_with_start_workflow", "workflow": "W", "workflow_id": "w-1", "signal": "s"}
CANCEL = {"operation": "cancel_workflow", "workflow_id": "w-1"}
TERMINATE = {"operation": "terminate_workflow", "workflow_id": "w-1"}
TIMES = {"execution_timeout_s": 3600, "run_timeout_s": 90.5, "task_timeout_s": 10, "start_delay_s": 86400}
TIMES_SQL = "execution_timeout => '1 hour', run_timeout => '90.5 s', task_timeout => '10 s', start_delay => '1 day'"
OBJECTS = {"retry_policy": {"maximum_attempts": 3}, "memo": {"a": None}, "search_attributes": {"K": [1]}}
OBJECTS_SQL = """retry_policy => '{"maximum_attempts": 3}', memo => '{"a": null}', search_attributes => '{"K": [1]}'"""


@pytest.mark.parametrize(
    ("call", "topic", "target", "payload"),
    [
        ("start_workflow('W', 'w-1')", "W", START | {"arguments": "none"}, None),
        ("start_workflow('W', 'w-1', '{\"b\":  1}')", "W", START | {"arguments": "one"}, '{"b":  1}'),
        ("start_workflow('W', 'w-1', 'null')", "W", START | {"arguments": "one"}, "null"),
        ("start_workflow('W', 'w-1', args => '[1, 2]')", "W", START | {"arguments": "many"}, "[1, 2]"),
        (
            (
                f"start_workflow('W', 'w-1', task_queue => 'q', namespace => 'n', id_reuse_policy => 'allow_duplicate',"
                f"id_conflict_policy => 'use_existing', on_duplicate => 'reject', {TIMES_SQL}, {OBJECTS_SQL}, topic => 'T')"
            ),
            "T",
            START
            | TIMES
            | OBJECTS
            | {"arguments": "none", "task_queue": "q", "namespace": "n", "id_reuse_policy": "allow_duplicate"}
            | {"id_conflict_policy": "use_existing", "on_duplicate": "reject"},
            None,
        ),
        ("signal_workflow('w-1', 's')", "s", SIGNAL | {"arguments": "none"}, None),
        (
            "signal_workflow('w-1', 's', '5', run_id => 'r', namespace => 'n', topic => 'T')",
            "T",
            SIGNAL | {"arguments": "one", "run_id": "r", "namespace": "n"},
            "5",
        ),
        ("signal_workflow('w-1', 's', args => '[]')", "s", SIGNAL | {"arguments": "many"}, "[]"),
        ("signal_with_start_workflow('W', 'w-1', 's')", "W", BOTH, {"args": [], "signal_args": []}),
        (
            (
                "signal_with_start_workflow('W', 'w-1', 's', '1', signal_args => '[2, 3]', task_queue => 'q', namespace => 'n',"
                f"id_reuse_policy => 'reject_duplicate', id_conflict_policy => 'use_existing', {TIMES_SQL}, {OBJECTS_SQL}, topic => 'T')"
            ),
            "T",
            BOTH
            | TIMES
            | OBJECTS
            | {
                "task_queue": "q",
                "namespace": "n",
                "id_reuse_policy": "reject_duplicate",
                "id_conflict_policy": "use_existing",
            },
            {"args": [1], "signal_args": [2, 3]},
        ),
        (
            "signal_with_start_workflow('W', 'w-1', 's', signal_input => 'null')",
            "W",
            BOTH,
            {"args": [], "signal_args": [None]},
        ),
        ("cancel_workflow('w-1')", "cancel_workflow", CANCEL, None),
        (
            "cancel_workflow('w-1', 'why', 'r', 'n', 'T')",
            "T",
            CANCEL | {"reason": "why", "run_id": "r", "namespace": "n"},
            None,
        ),
        ("terminate_workflow('w-1')", "terminate_workflow", TERMINATE, None),
        (
            "terminate_workflow('w-1', 'why', 'r', 'n', 'T')",
            "T",
            TERMINATE | {"reason": "why", "run_id": "r", "namespace": "n"},
            None,
        ),
    ],
)
async def test_workflow_functions_write_their_target(
    db: Connection, call: str, topic: str, target: dict[str, Any], payload: object
) -> None:
    written = await row(db, await db.fetchval(f"select outbox.{call}"))
    assert written["topic"] == topic
    assert written["target"] == target
    parsed = (
        written["payload"] if isinstance(payload, str) or written["payload"] is None else json.loads(written["payload"])
    )
    assert parsed == payload


FUNCTIONS = {
    "start_workflow": "'W', 'w-1'",
    "signal_workflow": "'w-1', 's'",
    "signal_with_start_workflow": "'W', 'w-1', 's'",
    "cancel_workflow": "'w-1'",
    "terminate_workflow": "'w-1'",
}


@pytest.mark.parametrize(("name", "arguments"), FUNCTIONS.items())
async def test_workflow_functions_pass_the_general_arguments_on(db: Connection, name: str, arguments: str) -> None:
    message_id, at = uuid4(), datetime(2100, 1, 1, tzinfo=UTC)
    call = f"""outbox.{name}({arguments}, key => 'k', headers => '{{"h": 1}}', message_id => $1, dedup_key => 'd',
                             available_at => $2, priority => 3)"""
    assert await db.fetchval(f"select {call}", message_id, at) == message_id
    written = await row(db, message_id)
    assert (written["key"], written["headers"], written["dedup_key"]) == ("k", {"h": 1}, "d")
    assert (written["available_at"], written["priority"]) == (at, 3)


async def test_enqueue_many_adds_in_the_order_of_the_array(db: Connection) -> None:
    messages = [{"topic": f"t{n}", "payload": n} for n in range(500)]
    ids = [r[0] for r in await db.fetch("select outbox.enqueue_many($1)", json.dumps(messages))]
    stored = await db.fetch("select message_id, topic from outbox.message order by due_at, seq")
    assert [r["message_id"] for r in stored] == ids
    assert [r["topic"] for r in stored] == [message["topic"] for message in messages]


async def test_enqueue_many_takes_every_name_of_enqueue(db: Connection) -> None:
    message_id = uuid4()
    message = {
        "topic": "t",
        "payload": None,
        "key": "k",
        "headers": {"h": 1},
        "target": CANCEL,
        "message_id": str(message_id),
        "dedup_key": "d",
        "available_at": "2100-01-01T00:00:00Z",
        "priority": 9,
    }
    assert await db.fetchval("select outbox.enqueue_many($1)", json.dumps([message])) == message_id
    written = await row(db, message_id)
    assert {name: written[name] for name in ("topic", "key", "headers", "target", "dedup_key", "priority")} == {
        name: message[name] for name in ("topic", "key", "headers", "target", "dedup_key", "priority")
    }
    assert written["payload"] == "null"
    assert written["available_at"] == datetime(2100, 1, 1, tzinfo=UTC)


async def test_enqueue_many_mixes_new_and_known_messages_in_order(db: Connection) -> None:
    known = await db.fetchval("select outbox.enqueue('known', dedup_key => 'k')")
    own = uuid4()
    messages = [
        {"topic": "first"},
        {"topic": "again", "dedup_key": "k"},
        {"topic": "mine", "message_id": str(own)},
        {"topic": "twice", "dedup_key": "d"},
        {"topic": "twice", "dedup_key": "d"},
        {"topic": "last"},
    ]
    ids = [r[0] for r in await db.fetch("select outbox.enqueue_many($1)", json.dumps(messages))]
    assert ids[1] == known
    assert ids[2] == own
    assert ids[3] == ids[4]
    topics = [r[0] for r in await db.fetch("select topic from outbox.message order by seq")]
    assert topics == ["known", "first", "mine", "twice", "last"]


async def test_enqueue_many_of_nothing_adds_nothing(db: Connection) -> None:
    assert await db.fetch("select outbox.enqueue_many('[]')") == []


@pytest.mark.parametrize("text", ['{"z":1,  "a" : 1.10, "a":2}', '"ünïcode \\u00e9"', " [1 , 2] ", "1e400", "null"])
async def test_payload_comes_back_as_written(db: Connection, text: str) -> None:
    """jsonb would sort keys, drop doubles and rewrite numbers; workflows may sign or hash what they get."""
    await db.execute("select outbox.enqueue('one', $1)", text)
    await db.execute("select outbox.start_workflow('one', 'w', $1)", text)
    await db.execute("select outbox.enqueue_many($1)", f'[{{"topic": "many", "payload": {text.strip()}}}]')
    stored = await db.fetch("select topic, payload from outbox.message")
    assert [r["payload"] for r in stored if r["topic"] == "one"] == [text] * 2
    assert [r["payload"] for r in stored if r["topic"] == "many"] == [text.strip()]


WRITTEN = '{"z":1e2,  "a" : 1.10, "a":18446744073709551616, "u": "\\u00e9"}'


async def test_headers_and_target_come_back_as_written(db: Connection) -> None:
    """Memo, search attributes and headers are cut out of these texts by the adapter."""
    target = f'{{"workflow_id": "w",  "operation":"start_workflow", "workflow": "W", "memo": {WRITTEN}}}'
    await db.execute("select outbox.enqueue('one', headers => $1, target => $2)", WRITTEN, target)
    await db.execute(
        "select outbox.enqueue_many($1)", f'[{{"topic": "many", "headers": {WRITTEN}, "target": {target}}}]'
    )
    stored = await db.fetch("select headers, target from outbox.message")
    assert [tuple(r) for r in stored] == [(WRITTEN, target)] * 2


@pytest.mark.parametrize("function", ["start_workflow('W', 'w'", "signal_with_start_workflow('W', 'w', 's'"])
@pytest.mark.parametrize("name", ["memo", "search_attributes"])
async def test_part_of_target_comes_back_as_written(db: Connection, function: str, name: str) -> None:
    await db.execute(f"select outbox.{function}, {name} => $1)", WRITTEN)
    target = await db.fetchval("select target from outbox.message")
    assert f'"{name}": {WRITTEN}' in target


async def test_large_payload_comes_back_as_written(db: Connection) -> None:
    text = json.dumps({"x": "é" * 1_000_000}, ensure_ascii=False)
    assert (await row(db, await db.fetchval("select outbox.enqueue('t', $1)", text)))["payload"] == text


# What is refused


@pytest.mark.parametrize(
    ("call", "fault", "hint"),
    [
        ("enqueue('')", "topic must not be empty", None),
        ("enqueue(null)", "topic must not be empty", None),
        ("enqueue(repeat('é', 128))", "topic is 256 bytes long, the limit is 255", None),
        ("enqueue('t', priority => 10)", "priority is 10, it must lie between 0 and 9", "0 is ordinary"),
        ("enqueue('t', priority => -1)", "priority is -1, it must lie between 0 and 9", "0 is ordinary"),
        ("enqueue('t', priority => null)", "priority is null, it must lie between 0 and 9", "0 is ordinary"),
        ("enqueue('t', headers => '[]')", "headers must be a JSON object", "pass {}"),
        ("enqueue('t', headers => null)", "headers must be a JSON object", "pass {}"),
        ("enqueue('t', dedup_key => '')", "dedup_key must not be empty", "pass null"),
        ("enqueue('t', target => '[]')", "target must be a JSON object", None),
        ("enqueue('t', target => 'null')", "target must be a JSON object", None),
        ("enqueue('t', target => '{}')", "target.operation is missing", "use start_workflow"),
        ("""enqueue('t', target => '{"operation": "x"}')""", "target.operation is 'x'", "use start_workflow"),
        ("""enqueue('t', target => '{"operation": "cancel_workflow"}')""", "cancel_workflow: workflow_id must not be empty", "derive"),
        ("start_workflow('W', '')", "start_workflow: workflow_id must not be empty", "derive"),
        ("start_workflow('W', 'w', namespace => '')", "start_workflow: namespace must not be empty", "leave it out"),
        ("start_workflow('W', 'w', task_queue => '')", "start_workflow: task_queue must not be empty", "leave it out"),
        ("signal_workflow('w', 's', run_id => '')", "signal_workflow: run_id must not be empty", "leave it out"),
        ("start_workflow('W', null)", "start_workflow: workflow_id must not be empty", "derive"),
        ("start_workflow('W', repeat('é', 501))", "start_workflow: workflow_id is 1002 bytes long, the limit is 1000", None),
        ("start_workflow('', 'w', topic => 't')", "start_workflow: workflow (the workflow type) must not be empty", None),
        ("start_workflow(null, 'w')", "start_workflow: workflow (the workflow type) must not be empty", None),
        ("start_workflow('W', 'w', '1', '[1]')", "give either input (one argument) or args", None),
        ("start_workflow('W', 'w', args => '{}')", "args must be a JSON array", "use input"),
        ("start_workflow('W', 'w', id_reuse_policy => 'x')", "start_workflow: id_reuse_policy is 'x'", "use reject_duplicate, allow"),
        (
            "start_workflow('W', 'w', id_conflict_policy => 'terminate_existing')",
            "start_workflow: id_conflict_policy terminate_existing contradicts id_reuse_policy reject_duplicate",
            "choose another id_reuse_policy",
        ),
        (
            "signal_with_start_workflow('W', 'w', 's', id_conflict_policy => 'fail')",
            "signal_with_start_workflow: id_conflict_policy is 'fail'",
            "use use_existing, terminate_existing",
        ),
        ("start_workflow('W', 'w', id_conflict_policy => 'x')", "start_workflow: id_conflict_policy is 'x'", "use fail, use_existing"),
        ("start_workflow('W', 'w', on_duplicate => 'x')", "start_workflow: on_duplicate is 'x'", "use accept, reject"),
        ("start_workflow('W', 'w', execution_timeout => '-1 s')", "execution_timeout is -00:00:01, it must lie between 0 and 100 years", None),
        ("start_workflow('W', 'w', run_timeout => '-1 s')", "run_timeout is -00:00:01", None),
        ("start_workflow('W', 'w', task_timeout => '-1 s')", "task_timeout is -00:00:01", None),
        ("start_workflow('W', 'w', start_delay => '-1 s')", "start_delay is -00:00:01", None),
        ("start_workflow('W', 'w', retry_policy => '[]')", "start_workflow: retry_policy must be a JSON object", None),
        ("start_workflow('W', 'w', memo => '1')", "start_workflow: memo must be a JSON object", None),
        ("""start_workflow('W', 'w', memo => '{"outbox_message_id": 1}')""", "start_workflow: memo.outbox_message_id is the outbox's own", "choose"),
        (
            """enqueue('t', target => '{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "memo": {"outbox_message_id": 1}}')""",
            "start_workflow: memo.outbox_message_id is the outbox's own",
            "choose",
        ),
        ("start_workflow('W', 'w', search_attributes => '\"\"')", "start_workflow: search_attributes must be a JSON object", None),
        ("signal_workflow('', 's')", "signal_workflow: workflow_id must not be empty", "derive"),
        ("signal_workflow('w', '', topic => 't')", "signal_workflow: signal (the signal name) must not be empty", None),
        ("signal_workflow('w', 's', '1', '[1]')", "give either input", None),
        ("signal_with_start_workflow('', 'w', 's', topic => 't')", "signal_with_start_workflow: workflow (the", None),
        ("signal_with_start_workflow('W', '', 's')", "signal_with_start_workflow: workflow_id must not be empty", "derive"),
        ("signal_with_start_workflow('W', 'w', '')", "signal_with_start_workflow: signal (the", None),
        ("signal_with_start_workflow('W', 'w', 's', signal_args => '1')", "args must be a JSON array", "use input"),
        ("signal_with_start_workflow('W', 'w', 's', id_reuse_policy => 'x')", "signal_with_start_workflow: id_reuse_policy", "use"),
        ("cancel_workflow('')", "cancel_workflow: workflow_id must not be empty", "derive"),
        ("terminate_workflow(null)", "terminate_workflow: workflow_id must not be empty", "derive"),
        ("enqueue_many(null)", "messages must be a JSON array of objects", "each object takes the names"),
        ("enqueue_many('{}')", "messages must be a JSON array of objects", "each object takes the names"),
        ("enqueue_many('[1]')", "messages[0]: a message must be a JSON object", None),
        ("enqueue_many('[{\"topic\": \"t\"}, {}]')", "messages[1]: topic must not be empty", None),
        ("enqueue_many('[{\"topic\": \"t\"}, {\"topic\": \"t\", \"paylod\": 1}]')", "messages[1]: unknown name 'paylod'", "use the names"),
        ("enqueue_many('[{\"topic\": \"t\", \"dedup_key\": \"d\"}, {\"topic\": \"\"}]')", "messages[1]: topic must not be empty", None),
        ("enqueue_many('[{\"topic\": \"t\"}, {\"topic\": \"t\", \"target\": {}}]')", "messages[1]: target.operation is missing", "use start"),
        ("enqueue_many('[{\"topic\": \"t\"}, {\"topic\": \"t\", \"message_id\": \"x\"}]')", 'messages[1]: message_id: invalid input syntax for type uuid: "x"', None),
        ("enqueue_many('[{\"topic\": \"t\"}, {\"topic\": \"t\", \"priority\": 1.5}]')", 'messages[1]: priority: invalid input syntax for type integer: "1.5"', None),
        ("enqueue_many('[{\"topic\": \"t\", \"priority\": 99999999999}]')", "messages[0]: priority: value", None),
        ("enqueue_many('[{\"topic\": \"t\", \"available_at\": \"soon\"}]')", "messages[0]: available_at: invalid input syntax for type timestamp", None),
        ("enqueue_many('[{\"topic\": \"t\", \"available_at\": \"2020-13-01\"}]')", "messages[0]: available_at: date/time field value out of range", None),
    ],
)  # fmt: skip
async def test_bad_argument_is_refused_in_the_callers_transaction(
    db: Connection, call: str, fault: str, hint: str | None
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await db.execute(f"select outbox.{call}")
    assert raised.value.sqlstate == "22023"
    assert raised.value.message.startswith(f"outbox: {fault}")
    assert (raised.value.hint or "").startswith(hint or "")
    assert (raised.value.hint is None) == (hint is None)
    assert await count(db) == 0


async def test_payload_that_is_not_json_is_refused_by_its_type(db: Connection) -> None:
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await db.execute("select outbox.enqueue('t', '{')")


# Transactions


async def test_rollback_leaves_nothing(db: Connection) -> None:
    transaction = db.transaction()
    await transaction.start()
    await db.execute("select outbox.enqueue('t'), outbox.start_workflow('W', 'w')")
    await db.execute('select * from outbox.enqueue_many(\'[{"topic": "u"}]\')')
    assert await count(db) == 3
    await transaction.rollback()
    assert await count(db) == 0


async def test_refusal_undoes_the_business_data_with_it(db: Connection) -> None:
    await db.execute("create table orders (id int)")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        async with db.transaction():
            await db.execute("insert into orders values (1)")
            await db.execute("select outbox.enqueue('')")
    assert await db.fetchval("select count(*) from orders") == 0


async def test_works_with_an_empty_search_path(db: Connection) -> None:
    await db.execute("set search_path = ''")
    await db.execute("select outbox.enqueue('t', dedup_key => 'd'), outbox.signal_with_start_workflow('W', 'w', 's')")
    await db.execute('select * from outbox.enqueue_many(\'[{"topic": "u"}]\')')
    await db.fetch("select * from outbox.create_history_partitions(30)")
    assert await count(db) == 3


# Identity


async def test_message_ids_are_version_7_and_sort_by_time(db: Connection) -> None:
    before = await db.fetchval("select clock_timestamp()")
    ids: list[UUID] = await db.fetchval("select array_agg(outbox.new_message_id()) from generate_series(1, 5000)")
    after = await db.fetchval("select clock_timestamp()")
    times = [datetime.fromtimestamp((message_id.int >> 80) / 1000, UTC) for message_id in ids]
    assert len(set(ids)) == 5000
    assert {message_id.version for message_id in ids} == {7}
    assert {message_id.variant for message_id in ids} == {"specified in RFC 4122"}
    assert times == sorted(times)
    assert before - timedelta(milliseconds=1) <= times[0] <= times[-1] <= after + timedelta(milliseconds=1)


async def test_known_message_id_adds_nothing_and_returns_it(db: Connection) -> None:
    message_id = uuid4()
    for headers in ('{"n": 1}', '{"n": 2}'):
        statement = "select outbox.enqueue('t', headers => $1, message_id => $2)"
        assert await db.fetchval(statement, headers, message_id) == message_id
    assert [r[0] for r in await db.fetch("select headers from outbox.message")] == ['{"n": 1}']


async def test_dedup_key_returns_the_first_messages_id(db: Connection) -> None:
    first = await db.fetchval("select outbox.enqueue('t', dedup_key => 'd')")
    assert await db.fetchval("select outbox.enqueue('t', dedup_key => 'd')") == first
    assert await db.fetchval("select outbox.enqueue('t', dedup_key => 'D')") != first
    assert await count(db) == 2


async def test_message_id_has_precedence_over_dedup_key_if_two_messages_conflict(db: Connection) -> None:
    by_id = await db.fetchval("select outbox.enqueue('a')")
    await db.execute("select outbox.enqueue('b', dedup_key => 'd')")
    assert await db.fetchval("select outbox.enqueue('a', message_id => $1, dedup_key => 'd')", by_id) == by_id


async def test_settled_message_frees_its_dedup_key(db: Connection) -> None:
    first = await db.fetchval("select outbox.enqueue('t', dedup_key => 'd')")
    await db.execute("delete from outbox.message")
    assert await db.fetchval("select outbox.enqueue('t', dedup_key => 'd')") != first


@pytest.mark.parametrize("commit", [True, False], ids=["commits", "rolls-back"])
@pytest.mark.parametrize("by", ["dedup_key => 'same'", "message_id => '00000000-0000-7000-8000-000000000001'"])
async def test_second_producer_waits_for_the_first_and_agrees_with_its_outcome(
    db: Connection, database: str, by: str, commit: bool
) -> None:
    answers: list[UUID] = []
    async with connected(database) as one, connected(database) as two:
        transaction = one.transaction()
        await transaction.start()
        first = await one.fetchval(f"select outbox.enqueue('t', headers => $1, {by})", '{"n": 1}')

        async def second() -> None:
            answers.append(await two.fetchval(f"select outbox.enqueue('t', headers => $1, {by})", '{"n": 2}'))

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            async with blocked_on(db, two):
                assert answers == []
                await (transaction.commit() if commit else transaction.rollback())
    [[headers]] = await db.fetch("select headers from outbox.message")
    assert headers == ('{"n": 1}' if commit else '{"n": 2}')
    assert (answers == [first]) == (commit or "message_id" in by)


async def test_second_producer_enqueues_again_if_the_first_message_was_settled(db: Connection, database: str) -> None:
    """The row that stood in the way is gone when it is looked for: there is room again, not an endless search."""
    first = await db.fetchval("select outbox.enqueue('first', dedup_key => 'd')")
    answers: list[UUID] = []
    async with connected(database) as settling, connected(database) as two:
        transaction = settling.transaction()
        await transaction.start()
        await settling.execute("delete from outbox.message")

        async def second() -> None:
            answers.append(await two.fetchval("select outbox.enqueue('second', dedup_key => 'd')"))

        async with anyio.create_task_group() as group:
            group.start_soon(second)
            async with blocked_on(db, two):
                await transaction.commit()
    assert answers != [first]
    assert [r[0] for r in await db.fetch("select topic from outbox.message")] == ["second"]


async def test_fifty_producers_of_one_dedup_key_make_one_message(db: Connection, database: str) -> None:
    answers: list[UUID] = []

    async def produce() -> None:
        async with connected(database) as connection:
            answers.append(await connection.fetchval("select outbox.enqueue('t', dedup_key => 'd')"))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(produce)
    assert len(answers) == 50
    assert len(set(answers)) == 1
    assert await count(db) == 1


# Time and order


async def test_priority_is_a_head_start_in_minutes(db: Connection) -> None:
    for priority in (0, 1, 9):
        written = await row(db, await db.fetchval("select outbox.enqueue('t', priority => $1)", priority))
        assert written["due_at"] == written["created_at"] - timedelta(minutes=priority)
        assert written["available_at"] == written["created_at"]


async def test_scheduled_message_has_no_head_start(db: Connection) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    written = await row(db, await db.fetchval("select outbox.enqueue('t', priority => 9, available_at => $1)", at))
    assert written["due_at"] == written["available_at"] == at


async def test_message_available_in_the_past_is_due_from_its_enqueue(db: Connection) -> None:
    """Otherwise a producer could overtake all others with a date of last year."""
    at = datetime(2020, 1, 1, tzinfo=UTC)
    written = await row(db, await db.fetchval("select outbox.enqueue('t', available_at => $1)", at))
    assert written["available_at"] == at
    assert written["due_at"] == written["created_at"]


async def test_messages_of_one_transaction_keep_their_order(db: Connection) -> None:
    async with db.transaction():
        for n in range(20):
            await db.execute("select outbox.enqueue($1)", f"{n:02}")
    assert [r[0] for r in await db.fetch("select topic from outbox.message order by due_at, seq")] == [
        f"{n:02}" for n in range(20)
    ]


# The doorbell


async def test_commit_rings_and_rollback_does_not(db: Connection, database: str) -> None:
    """The third notification is the fence: when it comes, all earlier ones have been received."""
    heard: list[str] = []
    fence = anyio.Event()
    async with connected(database) as listener:
        await listener.add_listener("outbox_wakeup", lambda *args: heard.append(args[3]))
        await listener.add_listener("fence", lambda *_: fence.set())
        transaction = db.transaction()
        await transaction.start()
        await db.execute("select outbox.enqueue('t')")
        await transaction.rollback()
        await db.execute("notify fence")
        with anyio.fail_after(15):
            await fence.wait()
        assert heard == []

        fence = anyio.Event()
        async with db.transaction():
            await db.execute("select outbox.enqueue('t')")
            await db.execute('select * from outbox.enqueue_many(\'[{"topic": "u"}, {"topic": "v"}]\')')
            assert heard == []
        await db.execute("notify fence")
        with anyio.fail_after(15):
            await fence.wait()
        assert heard == [""]
