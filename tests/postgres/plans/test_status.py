"""`outbox status` and `/status` cost the same however much there is, and are about right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outbox.store.sql import query
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(300)
YESTERDAY = """
    create table if not exists outbox.history_{day:%Y%m%d} partition of outbox.history
    for values from ('{day:%Y-%m-%d} 00:00Z') to ('{day:%Y-%m-%d} 24:00Z')
"""
HISTORY = """
    insert into outbox.history (message_id, seq, created_at, available_at, claimed_at, settled_at, deliveries, attempts, outcome, topic)
    select outbox.new_message_id(), n, at, at - n % 100 * interval '10 ms', at, at, 1, 0, 'delivered', 'topic'
    from generate_series(300000, 1, -1) n, lateral (select now() - n * interval '15 ms' as at) a
"""
MESSAGES = """
    insert into outbox.message (message_id, due_at, available_at, created_at, topic, target, headers)
    select outbox.new_message_id(), now() - interval '1 s', now() - interval '1 s', now(), 'topic', ('{"x": "' || repeat('x', 800) || '"}')::json, '{}'
    from generate_series(1, 30000) n
"""
DEAD = """
    insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, reason, topic, deliveries, attempts, priority,
                                    headers, payload, errors)
    select outbox.new_message_id(), n, now(), now(), now(), now(), 'rejected', 'topic', 1, 1, 0, '{}', to_json(repeat('x', 500)),
           '[{"kind": "BAD", "detail": "never"}]'
    from generate_series(1, 30000) n
"""
PAGES = 1000
PARTS = ("messages", "dead_letters", "completed", "errors")


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
async def test_status_reads_a_bounded_part_of_every_table(database: str, mode: str) -> None:
    async with connected(database) as db:
        day = await db.fetchval("select (now() at time zone 'UTC')::date - 1")
        await db.execute(YESTERDAY.format(day=day))  # the hour may begin there
        for statement in (HISTORY, MESSAGES, DEAD):
            await db.execute(statement)
        await db.execute(f"set plan_cache_mode = {mode}")
        report, exact, blocks = dict[str, Any](), dict[str, Any](), 0
        for part in PARTS:
            await db.execute(f"prepare {part} (int) as {query(f'status/{part}')}")
            [[text]] = await db.fetch(f"explain (analyze, buffers, format json) execute {part} ({PAGES})")
            plan = json.loads(text)[0]["Plan"]
            blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            report |= json.loads(await db.fetchval(f"execute {part} ({PAGES})"))
            exact |= json.loads(await db.fetchval(f"execute {part} (1000000)"))
    assert blocks < 8 * PAGES
    assert exact["completed"]["last_hour"] == pytest.approx(240_000, rel=0.01)
    assert exact["messages"]["pending"] == exact["dead_letters"]["rejected"] == 30_000
    assert report["completed"]["last_hour"] == pytest.approx(exact["completed"]["last_hour"], rel=0.2)
    assert report["completed"]["last_minute"] == pytest.approx(exact["completed"]["last_minute"], rel=0.1)
    assert report["completed"]["latency_p50_s"] == pytest.approx(exact["completed"]["latency_p50_s"], rel=0.1)
    assert report["messages"]["pending"] == pytest.approx(30_000, rel=0.2)
    assert report["dead_letters"]["rejected"] == pytest.approx(30_000, rel=0.2)
    [error] = report["errors"]
    assert (error["kind"], error["messages"]) == ("BAD", pytest.approx(30_000, rel=0.2))
