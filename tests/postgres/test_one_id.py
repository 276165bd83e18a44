"""One message id is one message: a repeat adds nothing, and another message under it is refused, never lost."""

from __future__ import annotations

import asyncpg
import pytest

from tests.support.running import fetch
from tests.support.sql import connected

ID = "0190d5c1-0000-7000-8000-000000000001"
STARTED = f"select outbox.start_workflow('W', 'w-1', message_id => '{ID}')"
REFUSED = f"message_id {ID} belongs to another message, with another topic, target or payload"


async def test_a_repeat_of_a_message_adds_nothing(database: str) -> None:
    assert [str(row[0]) for _ in range(2) for row in await fetch(database, STARTED)] == [ID, ID]
    assert len(await fetch(database, "select from outbox.message")) == 1


@pytest.mark.parametrize(
    "other",
    [
        f"select outbox.signal_workflow('w-1', 's', message_id => '{ID}')",
        f"select outbox.start_workflow('W', 'w-2', message_id => '{ID}')",
        f"select outbox.enqueue('W', message_id => '{ID}')",
        f"select outbox.start_workflow('W', 'w-1', '5', message_id => '{ID}')",
        f"""select * from outbox.enqueue_many('[{{"topic": "t", "message_id": "{ID}"}}]')""",
    ],
)
@pytest.mark.parametrize("first_commits", [True, False], ids=["in another transaction", "in the same"])
async def test_another_message_under_the_same_id_is_refused(database: str, other: str, first_commits: bool) -> None:
    async with connected(database) as connection:
        if first_commits:
            await connection.execute(STARTED)
        with pytest.raises(asyncpg.InvalidParameterValueError, match=REFUSED):
            async with connection.transaction():
                if not first_commits:
                    await connection.execute(STARTED)
                await connection.execute(other)


@pytest.fixture
async def table(database: str) -> str:
    await fetch(database, "create table public.orders (id int, event_id uuid)")
    return database


async def test_two_captures_with_one_message_id_are_refused_at_the_first_row(table: str) -> None:
    await fetch(table, "select outbox.capture('orders', '''ordered''', message_id => 'new.event_id')")
    await fetch(table, "select outbox.capture('orders', '''mailed''', message_id => 'new.event_id', name => 'mail')")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=f"capture .* of public.orders: {REFUSED}"):
        await fetch(table, f"insert into orders values (1, '{ID}')")


async def test_two_captures_that_differ_in_their_payload_only_are_refused_too(table: str) -> None:
    for name, payload in (("one", "to_json(1)"), ("two", "to_json(2)")):
        how = f"message_id => 'new.event_id', payload => '{payload}', name => '{name}'"
        await fetch(table, f"select outbox.capture('orders', '''ordered''', {how})")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=f"capture .* of public.orders: {REFUSED}"):
        await fetch(table, f"insert into orders values (1, '{ID}')")


async def test_two_rows_of_one_statement_with_one_id_are_one_message_or_refused(table: str) -> None:
    await fetch(table, "select outbox.capture('orders', '''ordered''', message_id => 'new.event_id')")
    with pytest.raises(asyncpg.InvalidParameterValueError, match=REFUSED):
        await fetch(table, f"insert into orders values (1, '{ID}'), (2, '{ID}')")
    await fetch(table, f"insert into orders values (1, '{ID}'), (1, '{ID}')")
    assert len(await fetch(table, "select from outbox.message")) == 1


async def test_a_repeat_may_have_another_trace(database: str) -> None:
    for trace in ("a", "b"):
        headers = f'{{"traceparent": "{trace}"}}'
        await fetch(database, f"select outbox.enqueue('t', headers => '{headers}', message_id => '{ID}')")
    assert len(await fetch(database, "select from outbox.message")) == 1


@pytest.mark.parametrize("dedup", ["", ", dedup_key => 'new.id'"])
async def test_a_captured_row_that_comes_again_adds_nothing(table: str, dedup: str) -> None:
    capture = f"select outbox.capture('orders', '''ordered''', message_id => 'new.event_id', operations => 'insert, update'{dedup})"
    await fetch(table, capture)
    await fetch(table, f"insert into orders values (1, '{ID}')")
    await fetch(table, "update orders set id = old.id from orders old")
    assert len(await fetch(table, "select from outbox.message")) == 1


async def test_captures_may_share_ids_if_their_conditions_exclude_each_other(table: str) -> None:
    await fetch(
        table, "select outbox.capture('orders', '''odd''', message_id => 'new.event_id', \"when\" => 'new.id = 1')"
    )
    await fetch(
        table,
        "select outbox.capture('orders', '''even''', message_id => 'new.event_id', name => 'even', \"when\" => 'new.id = 2')",
    )
    await fetch(table, f"insert into orders values (1, '{ID}'), (2, gen_random_uuid())")
    assert {row[0] for row in await fetch(table, "select topic from outbox.message")} == {"odd", "even"}
