"""The bounds of one message: what would stop its worker, or can never be delivered, is refused where it is enqueued."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg import Connection

from outbox.model.sink import Rejected
from outbox.store.sql import query
from outbox_temporal.target.target import parse
from tests.cli.test_cli import outbox
from tests.support.running import fetch
from tests.support.sql import clock, connected

TIME_CURE = "it must lie between the years 1970 and 2200"
INTERVAL_CURE = "it must lie between 0 and 100 years"
FAR_TIMES = (
    "infinity",
    "-infinity",
    "1969-12-31 23:59:59+00",
    "2200-01-01 00:00:01+00",
    "294276-12-31",
    "0044-03-15 BC",
)
FAR_INTERVALS = ("-1 s", "101 years", "300000 years", "36526 days")
INFINITE_INTERVALS = ("infinity", "-infinity")
"""PostgreSQL takes them since version 17. Earlier ones refuse them themselves."""


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        yield connection


async def refusal(db: Connection, statement: str, *arguments: object) -> str:
    """How a statement is refused: as a bad argument, and with nothing enqueued."""
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await db.fetch(statement, *arguments)
    assert raised.value.sqlstate == "22023"
    assert await db.fetchval("select count(*) from outbox.message") == 0
    return str(raised.value.message)


# Times and intervals


@pytest.mark.parametrize("name", ["available_at", "expires_at"])
@pytest.mark.parametrize("value", FAR_TIMES)
async def test_infinite_or_far_time_is_refused_by_every_producer(db: Connection, name: str, value: str) -> None:
    calls = (
        f"outbox.enqueue('t', {name} => '{value}')",
        f"outbox.enqueue('t', key => 'k', {name} => '{value}')",
        f"outbox.start_workflow('W', 'w', {name} => '{value}')",
        f"outbox.signal_workflow('w', 's', {name} => '{value}')",
        f"outbox.signal_with_start_workflow('W', 'w', 's', {name} => '{value}')",
        f"outbox.cancel_workflow('w', {name} => '{value}')",
        f"outbox.terminate_workflow('w', {name} => '{value}')",
        f"""outbox.enqueue_many('[{{"topic": "t", "{name}": "{value}"}}]')""",
        f"""outbox.enqueue_many('[{{"topic": "t", "dedup_key": "d", "{name}": "{value}"}}]')""",
    )
    for call in calls:
        said = await refusal(db, f"select {call}")
        assert f"{name} is " in said
        assert said.endswith(TIME_CURE), call
    message = json.dumps({"topic": "t", name: value})
    assert TIME_CURE in str(await db.fetchval("select outbox.fault_of_message($1)", message))


@pytest.mark.parametrize("value", ["1970-01-01 00:00+00", "2200-01-01 00:00+00", "now"])
async def test_times_within_the_bounds_are_taken(db: Connection, value: str) -> None:
    await db.execute(f"select outbox.enqueue('t', available_at => '{value}', expires_at => '{value}')")
    assert await db.fetchval("select isfinite(due_at) from outbox.message")


@pytest.mark.parametrize("name", ["dedup_window", "execution_timeout", "run_timeout", "task_timeout", "start_delay"])
async def test_infinite_or_far_interval_is_refused(db: Connection, name: str) -> None:
    values = FAR_INTERVALS
    if db.get_server_version().major >= 17:
        values += INFINITE_INTERVALS
    for value in values:
        call = f"outbox.start_workflow('W', 'w', dedup_key => 'd', {name} => '{value}')"
        said = await refusal(db, f"select {call}")
        assert f"{name} is " in said
        assert said.endswith(INTERVAL_CURE), call
    await db.execute(f"select outbox.start_workflow('W', 'w', dedup_key => 'd', {name} => '100 years')")


@pytest.mark.parametrize("value", ["-1", "3155760001", "1e400", "1e99", "1e-400", '"1"', "[]", "9" * 100])
@pytest.mark.parametrize("within", [None, "retry_policy"])
async def test_far_duration_in_a_target_is_refused(db: Connection, within: str | None, value: str) -> None:
    name = "maximum_interval_s" if within else "run_timeout_s"
    duration = f'"{name}": {value}'
    if within:
        duration = f'"{within}": {{{duration}}}'
    target = f'{{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", {duration}}}'
    many = f'[{{"topic": "t", "target": {target}}}]'
    for statement, argument in (
        ("select outbox.enqueue('t', target => $1)", target),
        ("select outbox.enqueue_many($1)", many),
    ):
        said = await refusal(db, statement, argument)
        assert f"{name} is " in said
        assert said.endswith("it must be a number of seconds between 0 and 3155760000 (100 years)")


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (r'"execution_timeout\u005fs": 1e400', "execution_timeout_s is 1e400, it must be a number of seconds"),
        (r'"retry_polic\u0079": {"maximum_interval\u005fs": 1e400}', "retry_policy: maximum_interval_s is 1000"),
        (r'"ru\u006e_timeout_s": "5"', 'run_timeout_s is "5", it must be'),
        ('"arguments": [1]', "arguments must be a string"),
        ('"arguments": ["one"]', "arguments must be a string"),
        ('"arguments": "two"', "arguments is 'two'"),
        ('"signal_arguments": "two"', "signal_arguments is 'two'"),
        ('"workflow": 5', "workflow must be a string"),
        ('"task_queue": {"name": "q"}', "task_queue must be a string"),
        ('"namespace": ["a"]', "namespace must be a string"),
        ('"summary": true', "summary must be a string"),
        ('"id_reuse_policy": ["reject_duplicate"]', "id_reuse_policy is"),
        (r'"mem\u006f": {"outbox\u005fmessage_id": 1}', "memo.outbox_message_id is the outbox's own"),
    ],
)
async def test_a_target_is_checked_by_what_it_means_not_by_how_it_is_written(
    db: Connection, member: str, fault: str
) -> None:
    target = f'{{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", {member}}}'
    assert fault in await refusal(db, "select outbox.enqueue('t', target => $1)", target)
    many = f'[{{"topic": "t", "target": {target}}}]'
    assert fault in await refusal(db, "select outbox.enqueue_many($1)", many)


@pytest.mark.parametrize(
    "policy",
    [
        {"maximum_attempts": "3"},
        {"maximum_attempts": 1.5},
        {"maximum_attempts": -1},
        {"maximum_attempts": 2**31},
        {"maximum_attempts": 2**31 - 1},
        {"maximum_attempts": 10**40},
        {"maximum_attempts": None},
        {"maximum_attempts": [3]},
        {"backoff_coefficient": 0.99},
        {"backoff_coefficient": "2"},
        {"backoff_coefficient": 1},
        {"backoff_coefficient": None},
        {"backoff_coefficient": []},
        {"non_retryable_error_types": "NoMoney"},
        {"non_retryable_error_types": None},
        {"non_retryable_error_types": [1]},
        {"non_retryable_error_types": [[]]},
        {"non_retryable_error_types": []},
        {"non_retryable_error_types": ["NoMoney"]},
        {"initial_interval_s": 10, "maximum_interval_s": 9.5},
        {"initial_interval_s": 10, "maximum_interval_s": 9.5, "maximum_attempts": 1},
        {"initial_interval_s": 10, "maximum_interval_s": 9.5, "maximum_attempts": 2},
        {"initial_interval_s": 10, "maximum_interval_s": 10},
        {"initial_interval_s": 10, "maximum_interval_s": 0},
        {"initial_interval_s": 10, "maximum_interval_s": None},
        {"initial_interval_s": 10, "maximum_interval_s": "9"},
        {"initial_interval_s": "10", "maximum_interval_s": 9},
        {"initial_interval_s": 0.1, "maximum_interval_s": 0.5},
        {"initial_interval_s": 0, "maximum_interval_s": 0.5},
        {"initial_interval_s": None, "maximum_interval_s": 0.5},
        {"maximum_interval_s": 0.5},
        {"maximum_interval_s": 1},
        {"attempts": 3},
        {},
    ],
    ids=json.dumps,
)
async def test_a_retry_policy_is_refused_exactly_if_the_worker_would_bury_it(db: Connection, policy: object) -> None:
    target = json.dumps({"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "retry_policy": policy})
    if isinstance(parse(target), Rejected):
        assert "start_workflow: retry_policy: " in await refusal(db, "select outbox.enqueue('t', target => $1)", target)
    else:
        await db.execute("select outbox.enqueue('t', target => $1)", target)


async def test_names_of_a_target_may_be_null(db: Connection) -> None:
    target = {"operation": "start_workflow", "workflow": "W", "workflow_id": "w", "arguments": None, "task_queue": None}
    await db.execute("select outbox.enqueue('t', target => $1)", json.dumps(target))


async def test_durations_within_the_bounds_are_taken(db: Connection) -> None:
    durations = {"execution_timeout_s": 3155760000, "run_timeout_s": 0.5, "task_timeout_s": 1e1, "start_delay_s": None}
    policy = {"initial_interval_s": 0, "maximum_interval_s": 1e9, "non_retryable_error_types": ["no_s"]}
    target = {"operation": "start_workflow", "workflow": "W", "workflow_id": "w", **durations, "retry_policy": policy}
    await db.execute("select outbox.enqueue('t', target => $1)", json.dumps(target))


async def test_captured_row_with_an_infinite_time_fails_its_writer(db: Connection) -> None:
    await db.execute("create table due (at timestamptz)")
    await db.execute("select outbox.capture('due', topic => $$'t'$$, available_at => 'new.at')")
    said = await refusal(db, "insert into due values (now()), ('infinity')")
    assert "available_at is infinity" in said
    await db.execute("select outbox.capture('due', topic => $$'t'$$, available_at => 'new.at', dedup_key => $$'d'$$)")
    assert "available_at is -infinity" in await refusal(db, "insert into due values ('-infinity')")


@pytest.mark.parametrize(
    "arguments", [("--available-at", "infinity"), ("--dedup-key", "d", "--dedup-window", "300000 years")]
)
async def test_far_time_on_the_command_line_is_one_line(db: Connection, database: str, arguments: tuple[str]) -> None:
    done = await outbox(database, "enqueue", "t", *arguments)
    assert done.code == 1
    assert "it must lie between" in done.fault


# Rows of an older outbox, or written by the tables' owner

OLD_ROWS = """
with row as (
    select outbox.new_message_id() as id, at::timestamptz as at, key
    from unnest('{infinity,-infinity}'::text[]) as at, unnest(array[null, 'k' || at]) as key
),
waiting as (
    insert into outbox.message (message_id, due_at, available_at, created_at, topic, key, restricted, ready)
    select id, at, at, now(), 't', key, key is not null, key is null or at < now() from row
),
settled as (
    insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic)
    select id, 1, now(), at, now(), now(), 1, 0, 'delivered', 't' from row
)
insert into outbox.dead_letter
    (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts, priority, reason, topic, headers, errors)
select outbox.new_message_id(), 1, now(), at, now(), now(), 1, 0, 0, 'rejected', 't', '{}',
       jsonb_build_array(jsonb_build_object('at', now(), 'kind', 'K', 'detail', 'd', 'counted', true))
from row
"""


async def test_old_rows_with_infinite_times_stop_no_worker_and_no_screen(db: Connection, database: str) -> None:
    await db.execute(OLD_ROWS)
    for command in (["status"], ["status", "--json"], ["dead", "list"]):
        done = await outbox(database, *command)
        assert (done.code, done.err) == (0, ""), command
        assert "Infinity" not in done.out
    facts = await db.fetchval(query("status/facts"), 2000)
    assert "nfinity" not in facts
    lives = await fetch(database, "select status from outbox.message_life where settled_at is null")
    assert {life["status"] for life in lives} == {"waiting", "pending"}
    async with clock(database) as worker:
        assert len(await worker.claim()) == 2
        assert (await worker.store.outlook()).next_due_s is not None  # the end of the leases


# What can never be delivered

DEEP = "[" * 501 + "1" + "]" * 501
NOT_DEEP = "[" * 500 + "1" + "]" * 500
HALF, LOW_HALF, NUL = r"\ud83d", r"\uDE00", r"\u0000"
TARGET = '{{"operation": "start_workflow", "workflow": "W", "workflow_id": "w", {}}}'


def places(value: str) -> dict[str, tuple[str, str]]:
    """A JSON value as each argument that may hold any: the statement and the argument's text."""
    memo, attributes = '"memo": {"m": ' + value + "}", '"search_attributes": {"s": ' + value + "}"
    return {
        "payload": ("select outbox.enqueue('t', $1)", value),
        "input": ("select outbox.start_workflow('W', 'w', $1)", value),
        "args": ("select outbox.start_workflow('W', 'w', args => $1)", f"[{value}]"),
        "signal_args": ("select outbox.signal_with_start_workflow('W', 'w', 's', signal_args => $1)", f"[{value}]"),
        "headers": ("select outbox.enqueue('t', headers => $1)", '{"h": ' + value + "}"),
        "memo": ("select outbox.start_workflow('W', 'w', memo => $1)", '{"m": ' + value + "}"),
        "memo in target": ("select outbox.enqueue('t', target => $1)", TARGET.format(memo)),
        "attributes": ("select outbox.enqueue('t', target => $1)", TARGET.format(attributes)),
    }


@pytest.mark.parametrize("place", places(""))
@pytest.mark.parametrize(
    "value", [f'"{HALF}"', f'"{LOW_HALF}"', f'["{HALF}{HALF}"]', r'"\\' + HALF + '"', '{"a' + HALF + '": 1}']
)
async def test_half_a_surrogate_pair_is_refused_everywhere(db: Connection, place: str, value: str) -> None:
    said = await refusal(db, *places(value)[place])
    assert "is no valid Unicode: Unicode" in said


@pytest.mark.parametrize("place", places(""))
async def test_escaped_characters_are_taken_as_they_were_written(db: Connection, place: str) -> None:
    value = rf'"\u00fc {HALF}{LOW_HALF} \\ud83d \\u0000 \\\\ude00"'
    await db.execute(*places(value)[place])
    written = await db.fetchrow("select * from outbox.message")
    assert value in f"{written['payload']} {written['headers']} {written['target']}"


async def test_nul_is_handed_on_in_a_payload_and_refused_elsewhere(db: Connection) -> None:
    value = f'"{NUL}"'
    for place, (statement, argument) in places(value).items():
        if place in ("headers", "memo", "memo in target", "attributes"):
            assert r"\u0000 cannot be converted to text" in await refusal(db, statement, argument)
    for place in ("payload", "input", "args", "signal_args"):
        await db.execute(*places(value)[place])


@pytest.mark.parametrize("place", places(""))
async def test_json_that_is_too_deep_for_its_readers_is_refused(db: Connection, place: str) -> None:
    said = await refusal(db, *places(DEEP)[place])
    assert said.endswith("is nested more than 500 levels deep")
    await db.execute(*places("[" * 490 + "1" + "]" * 490)[place])


PARTS = {
    "args": ("select outbox.start_workflow('W', 'w', args => $1)", "[{}]"),
    "signal_args": ("select outbox.signal_with_start_workflow('W', 'w', 's', signal_args => $1)", "[{}]"),
    "args in payload": (
        "select outbox.enqueue('t', $1, target => "
        """'{"operation": "signal_workflow", "workflow_id": "w", "signal": "s", "arguments": "many"}')""",
        "[{}]",
    ),
    "headers": ("select outbox.enqueue('t', headers => $1)", "{{{}}}"),
    "memo": ("select outbox.start_workflow('W', 'w', memo => $1)", "{{{}}}"),
    "search_attributes": ("select outbox.start_workflow('W', 'w', search_attributes => $1)", "{{{}}}"),
    "retry_policy": (
        "select outbox.start_workflow('W', 'w', retry_policy => $1)",
        '{{"non_retryable_error_types": [{}]}}',
    ),
}


@pytest.mark.parametrize("place", PARTS)
async def test_more_parts_than_500_are_refused(db: Connection, place: str) -> None:
    statement, form = PARTS[place]
    part = '"{0}"' if "[" in form else '"{0}": 1'
    said = await refusal(db, statement, form.format(",".join(part.format(n) for n in range(501))))
    assert said.endswith(": 501 elements, the limit is 500")
    await db.execute(statement, form.format(",".join(part.format(n) for n in range(500))))


async def test_payload_of_one_argument_may_have_many_elements(db: Connection) -> None:
    await db.execute("select outbox.start_workflow('W', 'w', input => $1)", json.dumps(list(range(10_000))))


async def test_many_brackets_beside_one_another_are_not_deep(db: Connection) -> None:
    await db.execute(
        "select outbox.enqueue('t', $1)", json.dumps([[{"a": [f"{NUL} {HALF}{LOW_HALF}"]}]] * 1000).replace(r"\\", "\\")
    )
    await db.execute("select outbox.enqueue('t', $1)", NOT_DEEP)


IN_STRINGS = [
    "[" * 2000,
    "]" * 2000,
    '"[' * 1000,
    "\\[" * 1000,
    '\\"{' * 1000,
    "},{" * 1000,
    "], [" * 1000,
    '": {"' * 1000,
    "\\",
]
"""What looks like brackets in a text and is none: escaped quotes and backslashes before them, patterns of siblings."""


@pytest.mark.parametrize("gap", [", ", ","])
@pytest.mark.parametrize("text", IN_STRINGS)
async def test_brackets_in_strings_are_no_levels(db: Connection, text: str, gap: str) -> None:
    statement = "select outbox.enqueue('t', $1)"
    strings = gap.join([json.dumps(text)] * 3)
    said = await refusal(db, statement, f"[{strings}{gap}{DEEP[1:-1]}{gap}{strings}]")
    assert said.endswith("is nested more than 500 levels deep")
    await db.execute(statement, f"[{strings}{gap}{NOT_DEEP[1:-1]}{gap}{strings}]")
    await db.execute(statement, json.dumps({text: [text, {text: text}]}, separators=(gap, ":")))


@pytest.mark.parametrize("gap", [", ", ","])
async def test_siblings_do_not_hide_what_is_deep(db: Connection, gap: str) -> None:
    siblings = gap.join(['{"a":1}'] * 300 + ["[1]"] * 300)
    around = "[" + siblings + gap + "{}" + gap + siblings + "]"
    at_each_level = ("[" + '{"a":1}' + gap + '{"a":') * 251 + "1" + "}]" * 251
    for deep in (around.replace("{}", DEEP[1:-1]), at_each_level):
        said = await refusal(db, "select outbox.enqueue('t', $1)", deep)
        assert said.endswith("is nested more than 500 levels deep")
    await db.execute("select outbox.enqueue('t', $1)", around.replace("{}", NOT_DEEP[1:-1]))


async def test_numbers_of_any_size_are_handed_on_except_in_search_attributes(db: Connection) -> None:
    for place, (statement, argument) in places("1e400").items():
        if place == "attributes":
            assert "too large for a double" in await refusal(db, statement, argument)
    for place, (statement, argument) in places("1e400").items():
        if place != "attributes":
            await db.execute(statement, argument)


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage"])
async def test_trace_header_that_is_no_string_is_refused(db: Connection, name: str) -> None:
    for value in (42, None, {}, []):
        said = await refusal(db, "select outbox.enqueue('t', headers => $1)", json.dumps({name: value, "other": 1}))
        assert said == f"outbox: headers: {name} must be a string"
    await db.execute("select outbox.enqueue('t', headers => $1)", json.dumps({name: "x", "other": 1}))


async def test_header_that_the_relay_writes_itself_is_refused(db: Connection) -> None:
    said = await refusal(db, "select outbox.enqueue('t', headers => $1)", '{"_tracer-data": 42}')
    assert said == "outbox: headers: _tracer-data is written by the relay"


# Sizes


@pytest.mark.parametrize(
    ("statement", "what", "limit"),
    [
        ("select outbox.enqueue('t', ('\"' || repeat('x', $1 - 2) || '\"')::json)", "payload is", 2096128),
        (
            "select outbox.enqueue('t', headers => ('{\"a\":\"' || repeat('x', $1 - 8) || '\"}')::json)",
            "headers are",
            65536,
        ),
        (
            'select outbox.enqueue(\'t\', target => (\'{"operation":"cancel_workflow","workflow_id":"w","x":"\''
            " || repeat('x', $1 - 56) || '\"}')::json)",
            "target is",
            1310720,
        ),
    ],
)
async def test_every_json_argument_has_a_limit(db: Connection, statement: str, what: str, limit: int) -> None:
    assert f"{what} {limit + 1} bytes long, the limit is {limit}" in await refusal(db, statement, limit + 1)
    await db.execute(statement, limit)
    assert await db.fetchval("select bytes from outbox.message") - limit in (0, 2)


@pytest.mark.parametrize("name", ["memo", "retry_policy", "search_attributes", "summary", "reason"])
async def test_no_part_of_a_target_is_without_limit(db: Connection, name: str) -> None:
    value = f'"{"x" * 1_500_000}"'
    value = value if name in ("summary", "reason") else '{"a": ' + value + "}"
    assert "the limit is" in await refusal(
        db, "select outbox.enqueue('t', target => $1)", TARGET.format(f'"{name}": {value}')
    )


async def test_every_way_in_notes_a_messages_size(db: Connection) -> None:
    headers, payload = '{"h": "ü"}', '["x"]'
    await db.execute("create table row (payload json, headers json)")
    await db.execute(
        "select outbox.capture('row', topic => $$'t'$$, payload => 'new.payload', headers => 'new.headers')"
    )
    await db.execute("insert into row values ($1, $2)", payload, headers)
    many = f'[{{"topic": "t", "payload": {payload}, "headers": {headers}}}]'
    await db.execute("select outbox.enqueue_many($1)", many)
    for more in ("", ", dedup_key => 'd'"):
        await db.execute(f"select outbox.enqueue('t', $1, headers => $2{more})", payload, headers)
    wanted = len(headers.encode()) + len(payload)
    assert [row["bytes"] for row in await db.fetch("select bytes from outbox.message")] == [wanted] * 4
