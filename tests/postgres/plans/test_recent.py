"""The documented questions about messages read what is recent, not the whole history."""

from __future__ import annotations

import json

import pytest

from tests.postgres.plans.test_plans import nodes
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(300)
HISTORY = """
    insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic, key, workflow_id)
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000' || '8' || substr(md5(n::text), 1, 15))::uuid,
           n, at, at, at, at, 1, 0, 'delivered', 'topic.' || n % 3, 'key-' || n, 'workflow-' || n
    from generate_series(100000, 1, -1) n, lateral (select now() - n * interval '100 ms' as at) a
"""
LATELY = 600
"""Messages of a minute."""


@pytest.mark.parametrize(
    ("question", "rows"),
    [
        ("order by enqueued_at desc limit 5", 5),
        ("where workflow_id = 'workflow-300'", 1),
        ("where key = 'key-300'", 1),
        ("where topic = 'topic.0' order by settled_at desc limit 5", 5),
    ],
)
async def test_a_question_about_the_last_minute_reads_that_minute(database: str, question: str, rows: int) -> None:
    async with connected(database) as db:
        await db.execute(HISTORY)
        await db.execute("analyze outbox.history")
        sql = f"select * from outbox.recent('1 minute') {question}"
        found = await db.fetch(sql)
        [[text]] = await db.fetch(f"explain (analyze, format json) {sql}")
    assert len(found) == rows
    scans = [node for node in nodes(json.loads(text)[0]["Plan"]) if "Scan" in node["Node Type"]]
    read = sum(
        (n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) * n["Actual Loops"]
        for n in scans
        if "Relation Name" in n
    )
    assert read <= 1.2 * LATELY


async def test_recent_shows_messages_in_every_state(database: str) -> None:
    async with connected(database) as db:
        waiting = await db.fetchval("select outbox.enqueue('waiting')")
        cancelled = await db.fetchval("select outbox.enqueue('cancelled')")
        await db.execute("select outbox.cancel($1)", cancelled)
        found = await db.fetch("select message_id, status from outbox.recent()")
        none = await db.fetchval("select count(*) from outbox.recent('-1 minute')")
    assert {(row["message_id"], row["status"]) for row in found} == {(waiting, "pending"), (cancelled, "cancelled")}
    assert none == 0
