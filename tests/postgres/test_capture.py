"""Rows of a table become messages: in the writer's transaction, in bulk, and without the writer's help."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import anyio
import asyncpg
import pytest
from asyncpg import Connection

from outbox.store.migrations import migrate
from tests.support.programs import pg_dump_program
from tests.support.sql import connected
from tests.support.versions import needs_postgres

DOCUMENT = Path(__file__).parents[2] / "docs" / "producing.md"
EVENTS = """
    create table public.events (
        id bigint generated always as identity primary key, type text, subject bigint, data jsonb, at timestamptz, done boolean default false
    )
"""
BULK = "insert into events (type, data) select 'e' || n, jsonb_build_object('n', n) from generate_series(1, 10000) n"
TOPICS = "select topic from outbox.message order by due_at, seq"
FUNCTIONS = "select oid::regprocedure::text from pg_proc where proname like 'captured\\_%' order by 1"
CATALOGUE = """
    select array_agg(line order by line) from (
        select format('%s %s', t.oid, t.xmin) as line from pg_trigger t
        union all select format('%s %s', p.oid, p.xmin) from pg_proc p where pronamespace = 'outbox'::regnamespace
    ) as lines
"""


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        await connection.execute(EVENTS)
        yield connection


async def capture(
    db: Connection, topic: str | None = "'t'", source: str | None = "public.events", **arguments: str | None
) -> str:
    names = ", ".join(f'"{name}" => ${place}' for place, name in enumerate(arguments, 3))
    return await db.fetchval(
        f"select outbox.capture($1::text::regclass, $2{', ' * bool(names)}{names})", source, topic, *arguments.values()
    )


async def topics(db: Connection) -> list[str]:
    return [row[0] for row in await db.fetch(TOPICS)]


async def payloads(db: Connection) -> list[Any]:
    return [json.loads(row[0]) for row in await db.fetch("select payload from outbox.message order by due_at, seq")]


@asynccontextmanager
async def role(db: Connection, *grants: str) -> AsyncIterator[str]:
    """A role with these rights, for the block; roles are the whole server's."""
    name = f"role_{uuid4().hex}"
    await db.execute(f"create role {name}")
    try:
        for grant in grants:
            await db.execute(f"grant {grant} to {name}")
        yield name
    finally:
        await db.execute(f"reset role; drop owned by {name} cascade; drop role {name}")


@asynccontextmanager
async def notifications(db: Connection, database: str) -> AsyncIterator[list[str]]:
    """What the channel heard in the block. The last notification is the fence: all before it have come when it does."""
    heard: list[str] = []
    fence = anyio.Event()
    async with connected(database) as listener:
        await listener.add_listener("outbox_wakeup", lambda *args: heard.append(args[3]))
        await listener.add_listener("fence", lambda *_: fence.set())
        yield heard
        await db.execute("notify fence")
        with anyio.fail_after(15):
            await fence.wait()


# What a row becomes


async def test_row_and_its_message_commit_together(db: Connection, database: str) -> None:
    await capture(db, "new.type")
    async with connected(database) as other:
        async with db.transaction():
            await db.execute("insert into events (type) values ('a')")
            assert await topics(db) == ["a"]
            assert await topics(other) == []
        assert await topics(other) == ["a"]


async def test_rollback_leaves_neither(db: Connection) -> None:
    await capture(db)
    transaction = db.transaction()
    await transaction.start()
    await db.execute("insert into events (type) values ('a')")
    await transaction.rollback()
    assert await topics(db) == []
    assert await db.fetchval("select count(*) from events") == 0


async def test_whole_row_is_the_payload_unless_another_is_given(db: Connection) -> None:
    await capture(db)
    await db.execute("insert into events (type, data) values ('a', '{\"x\": 1}')")
    assert await payloads(db) == [{"id": 1, "type": "a", "subject": None, "data": {"x": 1}, "at": None, "done": False}]


async def test_every_argument_of_enqueue_may_be_an_expression(db: Connection) -> None:
    message_id, at = uuid4(), datetime(2100, 1, 1, tzinfo=UTC)
    await capture(
        db,
        "'order.' || new.type",
        payload="new.data",
        key="new.subject",
        headers="jsonb_build_object('source', lower(tg_op))",
        target="jsonb_build_object('operation', 'cancel_workflow', 'workflow_id', 'order-' || new.subject)",
        message_id="(new.data ->> 'id')::uuid",
        dedup_key="'d' || new.subject",
        available_at="new.at",
        priority="new.subject % 10",
    )
    await db.execute(
        "insert into events (type, subject, data, at) values ('placed', 42, $1, $2)", f'{{"id": "{message_id}"}}', at
    )
    row = await db.fetchrow("select * from outbox.message")
    assert row["message_id"] == message_id
    assert (row["topic"], row["key"], row["dedup_key"], row["priority"]) == ("order.placed", "42", "d42", 2)
    assert json.loads(row["headers"]) == {"source": "insert"}
    assert json.loads(row["target"]) == {"operation": "cancel_workflow", "workflow_id": "order-42"}
    assert json.loads(row["payload"]) == {"id": str(message_id)}
    assert row["available_at"] == row["due_at"] == at


async def test_expression_that_gives_null_is_as_good_as_none(db: Connection) -> None:
    await capture(
        db, headers="new.data", target="new.data", dedup_key="new.type", priority="new.subject", available_at="new.at",
        message_id="new.type::uuid", payload="new.data", key="new.type",
    )  # fmt: skip
    await db.execute("insert into events (subject) values (null), (null)")
    rows = await db.fetch("select * from outbox.message")
    assert len(rows) == 2
    for row in rows:
        assert (row["payload"], row["key"], row["headers"], row["target"]) == (None, None, "{}", None)
        assert (row["dedup_key"], row["priority"]) == (None, 0)
        assert row["due_at"] == row["available_at"] == row["created_at"]


async def test_constant_expressions_need_no_cast(db: Connection) -> None:
    await capture(
        db, payload="""'{"a":  1}'""", headers="""'{"b": 2}'""", priority="3 -- ordinary", available_at="'2100-01-01Z'"
    )
    await db.execute("insert into events default values")
    row = await db.fetchrow("select * from outbox.message")
    assert (row["payload"], json.loads(row["headers"]), row["priority"]) == ('{"a":  1}', {"b": 2}, 3)
    assert row["available_at"] == datetime(2100, 1, 1, tzinfo=UTC)


async def test_due_messages_with_priority_take_enqueues_head_start(db: Connection) -> None:
    await capture(db, priority="5")
    await db.execute("insert into events default values")
    assert await db.fetchval("select available_at - due_at = interval '5 minutes' from outbox.message")


async def test_known_dedup_key_or_message_id_adds_nothing(db: Connection) -> None:
    message_id = await db.fetchval("select outbox.enqueue('events', '1', dedup_key => 'd')")
    await capture(db, topic="'events'", payload="'1'", dedup_key="new.type", message_id="(new.data ->> 'id')::uuid")
    await db.execute("insert into events (type) values ('d'), ('e'), ('e')")
    await db.execute("insert into events (data) values ($1)", json.dumps({"id": str(message_id)}))
    assert await db.fetchval("select array_agg(dedup_key order by seq) from outbox.message") == ["d", "e"]


async def test_examples_of_the_documents_work_as_they_stand(db: Connection) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("## Capture")[1].split("\n## ")[0]
    for example in re.findall(r"```sql\n(.*?)```", section, re.DOTALL):
        await db.execute(example)
    event = uuid4()
    await db.execute(
        "insert into domain_events values ($1, 's-1', 'placed', '{}', '00-1', false), ($2, 's-1', 'x', '{}', null, true)",
        event,
        uuid4(),
    )
    await db.execute(
        "insert into orders values (7, 'new'), (8, 'paid'); update orders set status = 'paid'; update orders set status = 'sent'"
    )
    placed, paid = await db.fetch("select * from outbox.message order by seq")
    assert (placed["message_id"], placed["topic"], placed["key"]) == (event, "placed", "s-1")
    assert json.loads(placed["headers"]) == {"traceparent": "00-1"}
    assert (paid["topic"], json.loads(paid["payload"])) == ("order_paid", {"order_id": 7, "was": "new"})
    assert json.loads(paid["target"])["workflow_id"] == "fulfil-7"


# Many rows


async def test_bulk_insert_becomes_as_many_messages_in_its_order_with_one_notification(
    db: Connection, database: str
) -> None:
    await capture(db, "new.type")
    async with notifications(db, database) as heard:
        await db.execute(BULK)
    assert await topics(db) == [f"e{n}" for n in range(1, 10001)]
    assert await db.fetchval("select count(distinct message_id) from outbox.message") == 10000
    assert heard == [""]


async def test_copy_is_captured(db: Connection) -> None:
    await capture(db, "new.type")
    await db.copy_records_to_table("events", records=[(f"c{n}",) for n in range(500)], columns=["type"])
    assert await topics(db) == [f"c{n}" for n in range(500)]


async def test_bulk_costs_no_more_than_some_plain_inserts(db: Connection) -> None:
    """A capture writes a wider row with two more indexes, so it costs several inserts; what goes row by row costs hundreds."""

    async def fastest(statement: str) -> float:
        times = []
        for _ in range(3):
            start = perf_counter()
            await db.execute(statement)
            times.append(perf_counter() - start)
        return min(times)

    plain = await fastest(BULK)
    await capture(db, "new.type", payload="new.data")
    assert await fastest(BULK) < 100 * plain


async def test_update_of_many_rows_stays_cheap_after_updates_of_one(db: Connection) -> None:
    """A plan made for one row would pair ten thousand by trying all hundred million combinations."""
    await db.execute(BULK)
    start = perf_counter()
    await db.execute("update events set done = not done")
    plain = perf_counter() - start
    await capture(
        db, operations="update", when="old.done is distinct from new.done", payload="json_build_array(old.id, new.id)"
    )
    for n in range(1, 9):
        await db.execute("update events set done = not done where id = $1", n)
    await db.execute("truncate outbox.message")
    start = perf_counter()
    await db.execute("update events set done = not done")
    assert perf_counter() - start < 60 * plain + 20
    pairs = await payloads(db)
    assert len(pairs) == 10000
    assert all(old == new for old, new in pairs)


@pytest.mark.parametrize("off", ["enable_mergejoin", "enable_hashjoin"])
async def test_pairs_come_in_the_order_of_the_rows_however_they_are_joined(db: Connection, off: str) -> None:
    """A hash join that does not fit into memory gives its rows back in another order."""
    await db.execute(BULK)
    await capture(
        db, operations="update", when="old.done is distinct from new.done", payload="json_build_array(old.id, new.id)"
    )
    await db.execute(f"set {off} = off; set work_mem = '64kB'")
    await db.execute("update events set done = not done, type = repeat('x', 500)")
    in_order = await db.fetchval("select array_agg(id order by ctid) from events")
    assert await payloads(db) == [[number, number] for number in in_order]


async def test_statement_without_rows_for_the_capture_wakes_no_worker(db: Connection, database: str) -> None:
    await capture(db, operations="insert or update", when="new.type = 'wanted'")
    async with notifications(db, database) as heard:
        await db.execute("insert into events (type) values ('other')")
        await db.execute("update events set done = true")
        await db.execute("update events set done = true where false")
    assert heard == []
    assert await topics(db) == []


# Operations and filters


async def test_when_chooses_the_rows(db: Connection) -> None:
    await capture(db, "new.type", when="new.subject > 1 or new.type = 'c' -- and no others")
    await db.execute("insert into events (type, subject) values ('a', 1), ('b', 2), ('c', null), ('d', null)")
    assert await topics(db) == ["b", "c"]


async def test_only_inserts_are_captured_unless_reported_otherwise(db: Connection) -> None:
    await capture(db)
    await db.execute("insert into events default values")
    await db.execute("update events set done = true")
    await db.execute("delete from events")
    await db.execute("truncate events")
    assert await topics(db) == ["t"]


async def test_update_sees_the_old_and_the_new_row(db: Connection) -> None:
    await db.execute("insert into events (type, subject) values ('a', 1), ('b', 2), ('c', 3)")
    await capture(
        db,
        "old.type || '-' || new.type",
        operations="update",
        when="old.type is distinct from new.type",
        payload="json_build_object('was', old, 'is', new)",
    )
    await db.execute("update events set type = upper(type), subject = -subject where subject <> 2")
    await db.execute("update events set subject = 7")
    assert await topics(db) == ["a-A", "c-C"]
    changes = [(change["was"]["subject"], change["is"]["subject"]) for change in await payloads(db)]
    assert changes == [(1, -1), (3, -3)]


async def test_delete_sees_the_old_row(db: Connection) -> None:
    await db.execute("insert into events (type) values ('a'), ('b')")
    await capture(db, "old.type", operations="delete")
    await db.execute("delete from events")
    assert await topics(db) == ["a", "b"]
    assert [payload["type"] for payload in await payloads(db)] == ["a", "b"]


async def test_operations_share_a_capture_where_the_expressions_allow(db: Connection) -> None:
    assert await capture(db, "lower(tg_op)", operations="update or insert") == "installed"
    assert await capture(db, "lower(tg_op)", operations="DELETE", name="gone") == "installed"
    await db.execute("insert into events (id, type) overriding system value values (1, 'a')")
    await db.execute("update events set type = 'b'")
    await db.execute("delete from events")
    assert await topics(db) == ["insert", "update", "delete"]


async def test_upsert_is_an_insert_or_an_update_and_nothing_when_it_does_nothing(db: Connection) -> None:
    await db.execute("insert into events (id, type) overriding system value values (1, 'old')")
    await capture(db, "lower(tg_op) || '-' || new.type", operations="insert, update")
    upsert = "insert into events (id, type) overriding system value values (1, 'b'), (2, 'c') on conflict (id)"
    await db.execute(f"{upsert} do update set type = excluded.type")
    assert sorted(await topics(db)) == ["insert-c", "update-b"]
    await db.execute(f"{upsert} do nothing")
    assert len(await topics(db)) == 2


@needs_postgres(15)
async def test_merge_gives_each_row_to_its_operation(db: Connection) -> None:
    await db.execute("insert into events (type) values ('a'), ('b')")
    await capture(db, "'update-' || old.type || new.type", operations="update")
    await capture(db, "'insert-' || new.type", name="added")
    await capture(db, "'delete-' || old.type", operations="delete", name="gone")
    await db.execute("""
        merge into events e using (values ('a'), ('b'), ('c')) as g (type) on e.type = g.type
        when matched and g.type = 'a' then update set type = 'A'
        when matched then delete
        when not matched then insert (type) values (g.type)
    """)
    assert sorted(await topics(db)) == ["delete-b", "insert-c", "update-aA"]


# Sources of every kind


PARTITIONED = """
    create table public.parted (id int, region text, primary key (id, region)) partition by list (region);
    create table public.parted_eu partition of parted for values in ('eu');
    create table public.parted_us (region text not null, id int not null);
    alter table parted attach partition parted_us for values in ('us')
"""


async def test_partitioned_table_is_captured_whole(db: Connection) -> None:
    await db.execute(PARTITIONED)
    await capture(db, "new.region", "public.parted", key="new.id")
    await db.execute("insert into parted values (1, 'eu'), (2, 'us'), (3, 'eu')")
    assert await topics(db) == ["eu", "us", "eu"]
    assert [payload["id"] for payload in await payloads(db)] == [1, 2, 3]


async def test_rows_that_move_between_partitions_keep_their_pairs(db: Connection) -> None:
    await db.execute(PARTITIONED)
    await db.execute(
        "insert into parted select n, case when n % 3 = 0 then 'eu' else 'us' end from generate_series(1, 1000) n"
    )
    await capture(
        db,
        "old.region || '-' || new.region",
        "public.parted",
        operations="update",
        payload="json_build_array(old.id, new.id)",
    )
    await db.execute("update parted set region = 'eu', id = id + 5000")
    pairs = await payloads(db)
    assert len(pairs) == 1000
    assert all(new == old + 5000 for old, new in pairs)
    assert sorted(set(await topics(db))) == ["eu-eu", "us-eu"]


async def test_update_fails_if_its_old_and_new_rows_cannot_be_paired(db: Connection) -> None:
    await db.execute(PARTITIONED)
    await db.execute("""
        create function drop_odd() returns trigger language plpgsql as $$ begin if new.id % 2 = 1 then return null; end if; return new; end $$;
        create trigger drop_odd before insert on parted_eu for each row execute function drop_odd()
    """)
    await db.execute("insert into parted values (1, 'us'), (2, 'us')")
    await capture(db, "old.region", "public.parted", operations="update")
    with pytest.raises(
        asyncpg.InvalidParameterValueError, match="capture rows of public.parted: a trigger of the table dropped"
    ):
        await db.execute("update parted set region = 'eu'")
    assert await topics(db) == []


async def test_statement_that_names_a_partition_is_captured_there(db: Connection) -> None:
    await db.execute(PARTITIONED)
    await capture(db, "'parent'", "public.parted")
    await capture(db, "'partition'", "public.parted_eu")
    await db.execute("insert into parted_eu values (1, 'eu')")
    assert await topics(db) == ["partition"]
    await db.execute("insert into parted values (2, 'eu')")
    assert await topics(db) == ["partition", "parent"]


async def test_updates_through_a_parent_include_its_heirs(db: Connection) -> None:
    await db.execute("create table public.heir (more int) inherits (events)")
    await db.execute("insert into heir (id, type) values (1, 'h')")
    await capture(db, "old.type || new.type", operations="update")
    await db.execute("update events set type = 'i'")
    assert await topics(db) == ["hi"]


async def test_odd_identifiers_are_quoted(db: Connection) -> None:
    source = '''"my ""Schema"".x"."tab'le; %s %I \\ $body$ üüüüüüüüüü"'''
    await db.execute(f"""create schema "my ""Schema"".x"; create table {source} ("select" text, "a'b\\ %s" int)""")
    assert (
        await capture(db, 'new."select"', source, key="""new."a'b\\ %s" || '\\ %s'""", operations="insert, update")
        == "installed"
    )
    assert (
        await capture(db, 'new."select"', source, key="""new."a'b\\ %s" || '\\ %s'""", operations="insert, update")
        == "unchanged"
    )
    await db.execute(f"insert into {source} values ('s', 5)")
    row = await db.fetchrow("select topic, key, payload from outbox.message")
    assert (row["topic"], row["key"]) == ("s", "5\\ %s")
    assert json.loads(row["payload"]) == {"select": "s", "a'b\\ %s": 5}
    listed = await db.fetchrow("select source = $1::text::regclass as same, key from outbox.captures", source)
    assert (listed["same"], listed["key"]) == (True, """new."a'b\\ %s" || '\\ %s'""")
    assert await db.fetchval("select outbox.uncapture($1::text::regclass)", source)


async def test_tables_of_one_name_in_two_schemas_are_two_captures(db: Connection) -> None:
    await db.execute("create schema shop; create table shop.events (type text)")
    await capture(db, "'public'")
    await capture(db, "'shop'", "shop.events")
    await db.execute("insert into shop.events values ('a')")
    await db.execute("insert into events (type) values ('a')")
    assert await topics(db) == ["shop", "public"]
    assert await db.fetchval("select outbox.uncapture('shop.events')")
    assert await db.fetchval("select array_agg(source::text) from outbox.captures") == ["events"]


async def test_two_outboxes_capture_one_table(db: Connection, database: str) -> None:
    await migrate(database, "second")
    await capture(db, "'first'")
    await db.execute("select second.capture('events', $$'second'$$, key => 'new.type')")
    await db.execute("insert into events (type) values ('k')")
    assert await topics(db) == ["first"]
    assert await db.fetchval("select topic || key from second.message") == "secondk"
    assert await db.fetchval("select array_agg(topic) from outbox.captures") == ["'first'"]
    assert await db.fetchval("select array_agg(topic) from second.captures") == ["'second'"]
    assert await db.fetchval("select second.uncapture('events')")
    assert await db.fetchval("select count(*) from outbox.captures") == 1


async def test_capture_follows_a_renamed_and_altered_table(db: Connection) -> None:
    await capture(db)
    await db.execute("insert into events default values")
    await db.execute("alter table events add column more int default 7; alter table events drop column data")
    await db.execute("alter table events rename to things")
    await db.execute("insert into things default values")
    before, after = await payloads(db)
    assert "more" not in before
    assert "data" in before
    assert after["more"] == 7
    assert "data" not in after
    assert await db.fetchval("select source::text from outbox.captures") == "things"
    assert await capture(db, source="public.things") == "unchanged"


# Installing, listing, removing


async def test_same_call_again_changes_nothing(db: Connection) -> None:
    assert await capture(db, key="new.id", operations="insert, update") == "installed"
    before = await db.fetchval(CATALOGUE)
    assert await capture(db, key="new.id", operations="UPDATE or insert") == "unchanged"
    assert await db.fetchval(CATALOGUE) == before


async def test_changed_arguments_replace(db: Connection) -> None:
    await capture(db, "'one'", operations="insert, update, delete", payload="'1'", when="true")
    assert await capture(db, "'two'", key="new.type") == "replaced"
    assert len(await db.fetch(FUNCTIONS)) == 1
    await db.execute("insert into events (type) values ('k')")
    await db.execute("update events set done = true")
    await db.execute("delete from events")
    assert await topics(db) == ["two"]
    assert await capture(db, "'two'", key="new.type", operations="insert,update") == "replaced"
    assert await db.fetchval("select operations from outbox.captures") == ["insert", "update"]


async def test_function_of_another_version_is_replaced_by_the_same_call(db: Connection) -> None:
    await capture(db)
    body = await db.fetchval("select body from outbox.capture_trigger")
    await db.execute(f"""
        create or replace function outbox.captured_rows_insert_on_events() returns trigger language plpgsql security definer
        as $older${body.split(chr(10))[0]}
        begin return null; end$older$
    """)
    assert await capture(db) == "replaced"
    assert await db.fetchval("select body from outbox.capture_trigger") == body
    assert await capture(db) == "unchanged"


async def test_replacing_is_all_or_nothing(db: Connection) -> None:
    await capture(db, "'good'")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await capture(db, "'good'", operations="insert, update", key="old.id")
    await db.execute("insert into events default values")
    assert await topics(db) == ["good"]


async def test_captures_of_two_names_on_one_table_both_enqueue(db: Connection) -> None:
    await capture(db, "'a'")
    await capture(db, "'b'", name="other")
    await db.execute("insert into events default values")
    assert sorted(await topics(db)) == ["a", "b"]


async def test_captures_are_listed(db: Connection) -> None:
    await capture(db, "new.type", when="new.id > 0", key="new.subject", operations="update, insert", name="changes")
    row = dict(await db.fetchrow("select source::text, c.* from outbox.captures c"))
    assert row.pop("installed_at") <= datetime.now(UTC)
    assert {name: value for name, value in row.items() if value is not None} == {
        "source": "events", "name": "changes", "operations": ["insert", "update"], "topic": "new.type",
        "key": "new.subject", "when": "new.id > 0", "enabled": True,
    }  # fmt: skip
    await db.execute("alter table events disable trigger user")
    assert await db.fetchval("select enabled from outbox.captures") is False


async def test_other_triggers_are_no_captures_with_any_arguments(db: Connection) -> None:
    await db.execute("""
        create function outbox.captured_by_me() returns trigger language plpgsql as 'begin return null; end';
        create trigger mine after insert on events for each statement execute function outbox.captured_by_me('{no json')
    """)
    await capture(db)
    assert await db.fetchval("select array_agg(name) from outbox.captures") == ["rows"]
    await db.execute("drop trigger mine on events; select outbox.uncapture('events')")
    assert [row[0] for row in await db.fetch(FUNCTIONS)] == ["outbox.captured_by_me()"]


async def test_removed_capture_leaves_nothing_but_its_messages(db: Connection) -> None:
    await capture(db, operations="insert, update")
    await db.execute("insert into events default values")
    assert await db.fetchval("select outbox.uncapture('public.events')") is True
    await db.execute("insert into events default values")
    assert await topics(db) == ["t"]
    assert await db.fetch("select * from outbox.captures") == []
    assert await db.fetch(FUNCTIONS) == []
    assert await db.fetchval("select outbox.uncapture('public.events')") is False


async def test_dropped_table_takes_its_capture_along(db: Connection) -> None:
    await capture(db)
    await db.execute("drop table events")
    assert await db.fetch("select * from outbox.captures") == []
    await db.execute(EVENTS)
    assert await capture(db) == "installed"
    assert [row[0] for row in await db.fetch(FUNCTIONS)] == ["outbox.captured_rows_insert_on_events()"]


async def test_dropped_outbox_leaves_the_table_usable(db: Connection) -> None:
    await capture(db)
    await db.execute("drop schema outbox cascade")
    await db.execute("insert into events default values")


async def test_concurrent_installers_agree(db: Connection, database: str) -> None:
    answers: list[str] = []

    async def install() -> None:
        async with connected(database) as connection:
            answers.append(await capture(connection, operations="insert, update"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(install)
    assert sorted(answers) == ["installed", *["unchanged"] * 4]


async def test_dump_and_restore_carries_captures_and_captures_nothing_again(
    db: Connection, database: str, empty_database: str
) -> None:
    await capture(db, "'ü''s' || new.type", key="new.id", operations="insert, update")
    await db.execute("insert into events (type) values ('a')")
    listed = "select source::text, name, operations, topic, key, installed_at from outbox.captures"
    before = await db.fetchrow(listed)
    dump = subprocess.run([pg_dump_program(), database], capture_output=True, check=True, timeout=60).stdout
    dump = dump.replace(
        b"SET transaction_timeout = 0;", b""
    )  # which this pg_dump writes for any server, and 14 to 16 refuse
    psql = pg_dump_program().with_name("psql")
    command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_database]
    subprocess.run(command, input=dump, capture_output=True, check=True, timeout=60)
    async with connected(empty_database) as restored:
        assert await restored.fetchrow(listed) == before
        assert len(await topics(restored)) == 1
        await restored.execute("insert into events (type) values ('b')")
        assert await topics(restored) == ["ü'sa", "ü'sb"]
        assert await capture(restored, "'ü''s' || new.type", key="new.id", operations="insert, update") == "unchanged"


# Rights


async def test_writer_needs_no_rights_on_the_outbox(db: Connection) -> None:
    await capture(db, "new.type")
    async with role(db, "insert on events") as writer:
        await db.execute(f"set role {writer}")
        await db.execute("insert into events (type) values ('a')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("select outbox.enqueue('t')")
        await db.execute("reset role")
    assert await topics(db) == ["a"]


async def test_functions_of_captures_run_for_no_other_tables(db: Connection) -> None:
    """They run with their owner's rights: who could attach one to a table of his own could write into the outbox."""
    await capture(db, "'t'")
    async with role(db, "usage on schema outbox", "create on schema public") as stranger:
        await db.execute(f"set role {stranger}; create table public.mine (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="captured_rows_insert_on_events"):
            await db.execute(
                "create trigger t after insert on mine for each statement execute function outbox.captured_rows_insert_on_events()"
            )
        await db.execute("reset role")


async def test_owner_of_a_table_who_is_no_superuser_can_capture_it(db: Connection) -> None:
    rights = ("outbox_producer", "create on schema outbox", "insert on outbox.message", "create on schema public")
    async with role(db, *rights) as owner:
        await db.execute(f"set role {owner}; create table public.orders (id int)")
        assert await capture(db, "'owned'", "public.orders", key="new.id") == "installed"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await capture(db)
        await db.execute("reset role; insert into orders values (1)")
        assert await topics(db) == ["owned"]
        await db.execute(f"set role {owner}")
        assert await db.fetchval("select outbox.uncapture('orders')")
        await db.execute("reset role")


async def test_installer_without_the_right_to_enqueue_is_refused_at_once(db: Connection) -> None:
    async with role(db, "outbox_producer", "create on schema outbox", "create on schema public") as owner:
        await db.execute(f"set role {owner}; create table public.orders (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table message"):
            await capture(db, source="public.orders")
        await db.execute("reset role")


async def test_writer_cannot_slip_a_function_of_his_into_the_expressions(db: Connection) -> None:
    await capture(db, "lower(new.type)")
    await db.execute("""
        create schema evil;
        create function evil.lower(text) returns text language sql as $$ select 'evil' $$;
        create function pg_temp.lower(text) returns text language sql as $$ select 'evil' $$;
        set search_path = evil, pg_temp, public, pg_catalog
    """)
    await db.execute("insert into public.events (type) values ('A')")
    assert await topics(db) == ["a"]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "fault", "hint"),
    [
        ({"topic": "order_paid"}, 'topic, on insert: column "order_paid" does not exist', "$$'order_paid'$$"),
        ({"topic": "new.typ"}, "topic, on insert: column new.typ does not exist", "new.type"),
        ({"topic": "old.type"}, 'topic, on insert: missing FROM-clause entry for table "old"', "an update has both"),
        ({"topic": "'a', 'b'"}, "topic, on insert: INSERT has more expressions than target columns", None),
        ({"topic": "'a"}, "topic, on insert: unterminated quoted string", None),
        ({"topic": ""}, "topic, on insert: syntax error", None),
        ({"topic": "'a'); drop table events; --"}, "topic, on insert: syntax error", None),
        ({"topic": "string_agg(new.type, '')"}, "topic, on insert: aggregate functions are not allowed", None),
        ({"topic": "string_to_table(new.type, ',')"}, "topic, on insert: set-returning functions are not allowed", None),
        ({"topic": "my_function(new.type)"}, "topic, on insert: function my_function(text) does not exist", None),
        ({"payload": "new.type"}, 'payload, on insert: column "payload" is of type json but expression is of type text', "cast"),
        ({"payload": "new.id"}, 'payload, on insert: column "payload" is of type json', "cast"),
        ({"payload": "'{'"}, "payload, on insert: invalid input syntax for type json", None),
        ({"headers": "new.type"}, 'headers, on insert: column "headers" is of type json', "cast"),
        ({"target": "new.id"}, 'target, on insert: column "target" is of type json', "cast"),
        ({"message_id": "new.id"}, 'message_id, on insert: column "message_id" is of type uuid', "cast"),
        ({"available_at": "new.id"}, 'available_at, on insert: column "available_at" is of type timestamp', "cast"),
        ({"priority": "new.type"}, 'priority, on insert: column "priority" is of type smallint', "cast"),
        ({"when": "new.type"}, "when, on insert: argument of WHERE must be type boolean, not type text", None),
        ({"when": "new.tableoid = 1"}, "when, on insert: column new.tableoid does not exist", "new.column"),
        ({"key": "new.id", "operations": "insert, delete"}, 'key, on delete: missing FROM-clause entry for table "new"', "an update has both"),
        ({"key": "id || old.type", "operations": "update"}, 'key, on update: column reference "id" is ambiguous', "new.column"),
        ({"key": "type", "operations": "update", "when": "old.id > 1"}, 'key, on update: column reference "type" is ambiguous', "new.column"),
    ],
)  # fmt: skip
async def test_wrong_expression_is_refused_in_one_line_when_it_is_installed(
    db: Connection, arguments: dict[str, str], fault: str, hint: str | None
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await capture(db, **arguments)
    assert raised.value.sqlstate == "22023"
    assert raised.value.message.startswith(f"outbox: capture rows of public.events: {fault}")
    assert "\n" not in raised.value.message
    assert (hint or "") in (raised.value.hint or "")
    assert await db.fetch("select * from outbox.captures") == []
    assert await db.fetch(FUNCTIONS) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"topic": None}, "a capture needs a source and a topic"),
        ({"source": None}, "a capture needs a source and a topic"),
        ({"operations": "truncate"}, "operations is 'truncate'"),
        ({"operations": ""}, "operations is ''"),
        ({"operations": None}, "operations is NULL"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"name": None}, "name is NULL"),
        ({"source": "public.a_view"}, "public.a_view is not a table"),
        ({"source": "outbox.message"}, "outbox.message is the outbox's own"),
    ],
)
async def test_wrong_argument_is_refused(db: Connection, arguments: dict[str, Any], fault: str) -> None:
    await db.execute("create view public.a_view as select * from events")
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await capture(db, **arguments)
    assert raised.value.message == f"outbox: {fault}"
    assert raised.value.hint


async def test_trigger_of_another_is_not_replaced(db: Connection) -> None:
    await db.execute("""
        create function public.other() returns trigger language plpgsql as 'begin return null; end';
        create trigger outbox_rows_insert after insert on events for each statement execute function other()
    """)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="events has another trigger outbox_rows_insert"):
        await capture(db)


@pytest.mark.parametrize(
    ("arguments", "values", "fault"),
    [
        ({"topic": "new.type"}, {"type": None}, "topic must not be empty"),
        ({"topic": "new.type"}, {"type": "é" * 128}, "topic is 256 bytes long, the limit is 255"),
        ({"priority": "new.subject"}, {"subject": 10}, "priority is 10, it must lie between 0 and 9"),
        ({"headers": "new.data"}, {"data": "[]"}, "headers must be a JSON object"),
        ({"dedup_key": "new.type"}, {"type": ""}, "dedup_key must not be empty"),
        ({"target": "new.data"}, {"data": "{}"}, "target.operation is missing"),
    ],
)
async def test_row_that_enqueue_would_refuse_fails_its_statement_and_names_the_capture(
    db: Connection, arguments: dict[str, str], values: dict[str, Any], fault: str
) -> None:
    await capture(db, **arguments, name="mine")
    ((column, value),) = values.items()
    with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
        await db.execute(f"insert into events ({column}) values ($1)", value)
    assert raised.value.message == f"outbox: capture mine of public.events: {fault}"
    assert await db.fetchval("select count(*) from events") == 0


async def test_expression_that_fails_on_a_row_fails_its_statement_and_the_context_names_the_capture(
    db: Connection,
) -> None:
    await capture(db, key="1 / new.subject", name="mine")
    with pytest.raises(asyncpg.DivisionByZeroError) as raised:
        await db.execute("insert into events (subject) values (1), (0)")
    assert "outbox.captured_mine_insert_on_events()" in raised.value.as_dict()["context"]
    assert await db.fetchval("select count(*) from events") == 0
