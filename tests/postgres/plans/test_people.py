"""What people ask for is planned for what they ask: for all dead letters, or for a list of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from outbox.cli.session import with_store
from outbox.postgres.pool import open_pool
from outbox.store.dead_letters import DeadLetters, Filter
from outbox.store.sql import query
from tests.postgres.plans.test_plans import nodes
from tests.support.running import fetch, settings

pytestmark = pytest.mark.timeout(300)
DEAD = """
    insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, reason, topic, deliveries, attempts, priority, headers, errors)
    select outbox.new_message_id(), n, now(), now(), now(), now() - n * interval '1 ms', 'rejected', 'topic', 1, 1, 0, '{}',
           '[{"kind": "BAD", "detail": "never"}]'
    from generate_series(1, $1::int) n
"""


@pytest.fixture
async def dead(database: str) -> AsyncIterator[str]:
    await fetch(database, DEAD, 100_000)
    yield database


async def test_bulk_commands_read_a_hundred_thousand_named_dead_letters_in_a_few_seconds(dead: str) -> None:
    """With a plan that suits every argument this was a minute's work, as each row was compared with each id."""

    async def look(letters: DeadLetters) -> tuple[int, int]:
        found = await letters.find_dead_letters(Filter())
        ids = [letter.message_id for letter in found]
        [total] = await letters.dead_letter_totals(Filter(message_ids=ids))
        again = await letters.find_dead_letters(Filter(message_ids=ids))
        return total.messages, len(again)

    began_s = monotonic()
    assert await with_store(settings(dead), DeadLetters, look) == (100_000, 100_000)
    assert monotonic() - began_s < 20


async def test_a_few_dead_letters_of_many_are_looked_up_by_their_ids(dead: str) -> None:
    types = "text, text, text, text, float, float, uuid[], int"
    async with (
        open_pool(dead, size=1, application_name="test", statement_timeout_s=30, for_people=True) as pool,
        pool.acquire() as connection,
    ):
        ids = await connection.fetchval(
            "select array_agg(message_id) from (select * from outbox.dead_letter limit 10) d"
        )
        await connection.execute(f"prepare found ({types}) as {query('dead_letters/find')}")
        listed = ", ".join(f"'{message_id}'::uuid" for message_id in ids)
        execute = f"execute found (null, null, null, null, null, null, array[{listed}], null)"
        for _ in range(6):  # a server may keep a plan from the sixth time on
            await connection.execute(execute)
        [[text]] = await connection.fetch(f"explain (analyze, format json) {execute}")
    scans = [node for node in nodes(json.loads(text)[0]["Plan"]) if node.get("Relation Name") == "dead_letter"]
    read = [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans]
    assert read == [10]
