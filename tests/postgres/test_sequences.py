"""Sequences that a restore or a cut-over left behind jam nothing, and the doctor names them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from outbox.model.message import Pause
from outbox.model.sink import Delivered
from outbox.store.migrations import migrate
from outbox_temporal.importing.journal import Books
from tests.support.examining import examined, wrong
from tests.support.running import fetch
from tests.support.sql import Clock, clock


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    async with clock(database) as worker:
        worker.pass_s(3600)
        yield worker


async def restart(worker: Clock, sequence: str) -> None:
    await worker.pool.execute(f"select setval('outbox.{sequence}', 1, false)")


async def enqueue_as_first(worker: Clock, topic: str) -> None:
    """Enqueue with the number that the first message has. Equals go by message id: here in the order of topics."""
    await restart(worker, "message_seq_seq")
    await worker.pool.execute("select outbox.enqueue($1, key => 'k', message_id => $2)", topic, UUID(int=ord(topic)))


async def drained(worker: Clock, series: int = 1) -> list[str]:
    """Topics in the order of their delivery, until nothing comes any more."""
    came: list[str] = []
    for _ in range(20):
        messages = await worker.claim(series=series)
        await worker.store.complete([(message, Delivered()) for message in messages])
        came += [message.topic for message in messages]
    return came


@pytest.mark.parametrize("series", [1, 10])
async def test_messages_of_one_key_with_one_number_go_out_and_hold_up_no_other(worker: Clock, series: int) -> None:
    for topic in "abc":
        await enqueue_as_first(worker, topic)
        await worker.pool.execute(
            "select outbox.enqueue('other', key => $1), outbox.enqueue('tenant', tenant => 't')", topic
        )
    assert await worker.pool.fetchval("select count(distinct seq) from outbox.message where key = 'k'") == 1
    came = await drained(worker, series)
    assert [topic for topic in came if topic in "abc"] == ["a", "b", "c"]
    assert len(came) == 9


@pytest.mark.parametrize("series", [1, 3])
async def test_the_next_of_equals_is_called_when_one_is_deleted_or_sleeps_behind_none(
    worker: Clock, series: int
) -> None:
    for topic in "abcd":
        await enqueue_as_first(worker, topic)
    first = await worker.claim(series=series)
    await worker.pool.execute("delete from outbox.message where topic = 'b' and lease_token is null")
    await worker.store.complete([(message, Delivered()) for message in first])
    await worker.store.call_sleepers()
    wanted = "acd" if series == 1 else "abcd"
    assert [message.topic for message in first] + await drained(worker, series) == list(wanted)


async def test_a_worker_registers_under_the_next_free_number(worker: Clock) -> None:
    await restart(worker, "worker_worker_id_seq")
    others = await worker.pool.fetch("select worker_id from outbox.worker")
    assert await worker.workers.register("another", "test", {}) not in {row[0] for row in others}


async def test_a_rule_never_takes_the_number_of_another_or_of_one_that_is_over(worker: Clock) -> None:
    pool = worker.pool
    await worker.rules.pause(Pause("a", None))
    await worker.rules.limit_topic("l", 5.0, None)
    await worker.rules.pause(Pause("over", None))
    await worker.rules.resume(Pause("over", None))
    used = await pool.fetchval(
        "select array_agg(rule_id) from (select rule_id from outbox.pause union all select rule_id from outbox.topic_limit union all select rule_id from outbox.ended_rule) r"
    )
    assert len(set(used)) == 3
    for what in (Pause("b", None), Pause(None, "k"), Pause(None, None)):
        await restart(worker, "rule_id")
        await worker.rules.pause(what)
        await worker.rules.pause(what)  # which changes nothing
    await restart(worker, "rule_id")
    await worker.rules.limit_topic("l", 6.0, None)
    pauses = await pool.fetch("select topic, key, rule_id from outbox.pause")
    assert {(row["topic"], row["key"]) for row in pauses} == {("a", None), ("b", None), (None, "k"), (None, None)}
    rules = [
        row["rule_id"]
        for row in await pool.fetch(
            "select rule_id from outbox.pause union all select rule_id from outbox.topic_limit union all select rule_id from outbox.ended_rule"
        )
    ]
    assert len(rules) == len(set(rules)) == 7


async def test_an_import_begins_under_the_next_free_number(worker: Clock) -> None:
    books = Books(worker.pool, "outbox")
    first = await books.open_import("a", "id")
    await restart(worker, "import_import_id_seq")
    assert (await books.open_import("b", "id")).import_id > first.import_id


async def test_doctor_names_sequences_that_were_left_behind_and_migrate_sets_them(worker: Clock, database: str) -> None:
    await worker.pool.execute("select outbox.enqueue('t') from generate_series(1, 3)")
    await worker.rules.pause(Pause("a", None))
    await worker.rules.pause(Pause("b", None))
    await worker.rules.resume(Pause("b", None))
    await Books(worker.pool, "outbox").open_import("a", "id")
    assert "sequences" not in wrong(await examined(database))
    for sequence in ("message_seq_seq", "worker_worker_id_seq", "import_import_id_seq", "rule_id"):
        await restart(worker, sequence)
    found = wrong(await examined(database))["sequences"]
    assert found.detail.startswith(
        "outbox.import_import_id_seq, outbox.message_seq_seq, outbox.rule_id, outbox.worker_worker_id_seq give numbers"
    )
    assert found.cure == "outbox migrate"
    await migrate(database)
    assert "sequences" not in wrong(await examined(database))
    assert await fetch(database, "select name from outbox.sequences() where at < highest") == []
