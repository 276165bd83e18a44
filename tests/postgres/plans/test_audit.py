"""An audit reads a page at a time, however much history there is."""

from __future__ import annotations

import json

import pytest

from outbox.store.sql import query
from tests.postgres.plans.test_plans import nodes
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(300)
HISTORY = """
    insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic, operation)
    select outbox.new_message_id(), n, at, at, at, at, 1, 0, 'delivered', 'topic', 'start_workflow'
    from generate_series(1, 20000) n, lateral (select now() - n * interval '5 s' as at) a
"""
PAGE = 100


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_a_page_of_messages_reads_little_more_than_itself(database: str, mode: str) -> None:
    async with connected(database) as db:
        await db.execute("set enable_seqscan = off")  # as the pool's sessions have it
        await db.execute(HISTORY)
        await db.execute("analyze outbox.history")
        after = await db.fetchval("select message_id from outbox.history order by message_id offset 10000 limit 1")
        await db.execute(f"prepare page (timestamptz, timestamptz, uuid, int) as {query('audit/messages')}")
        await db.execute(f"set plan_cache_mode = {mode}")
        arguments = f"now() - interval '2 days', now(), '{after}', {PAGE}"
        [[text]] = await db.fetch(f"explain (analyze, format json) execute page ({arguments})")
    plan = list(nodes(json.loads(text)[0]["Plan"]))
    read = sum(node["Actual Rows"] * node["Actual Loops"] for node in plan if "Scan" in node["Node Type"])
    assert PAGE <= read <= 2 * PAGE
