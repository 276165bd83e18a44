"""The hot statements read in proportion to the batch, for any contents of the table and any statistics of the planner.

Each plan is compared with the plan of the same statement on a twenty-fifth of the rows.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asyncpg import Connection

from outbox.model.sink import Delivered
from outbox.postgres.pool import open_pool
from outbox.store.enqueue import Enqueuing
from outbox.store.messages import Burial, Retry, Store
from outbox.store.sql import query
from outbox.store.workers import Workers
from tests.support.sql import connected
from tests.support.versions import needs_postgres

pytestmark = pytest.mark.timeout(300)
MANY, FEW = 50_000, 2_000
TYPES = {
    "claim/plain": "int, float, bigint, timestamptz, float, bigint, bigint",
    "claim/ruled": "int, float, bigint, timestamptz, float, bigint, bigint",
    "claim/outlook": "timestamptz, bigint",
    "presence/absent": "bigint, float",
    "presence/rescue": "bigint[], bigint[], timestamptz",
    "claim/restricted": "int, float, bigint, int, timestamptz, text, int, bigint",
    "settle/complete": "uuid[], text, text, text, text, uuid[], bool, timestamptz, text, text[], text[], text[], text[]",
    "settle/retry": "uuid[], bigint[], float[], bool[], text[], text[], timestamptz",
    "settle/bury": "uuid[], bigint[], text[], bool[], text[], text[], timestamptz",
    "settle/release": "uuid[], bigint[], timestamptz",
}
SEED = """
    insert into outbox.message (message_id, due_at, available_at, created_at, topic, target, payload, lease_token, claimed_at, worker_id, deliveries)
    select outbox.new_message_id(), now() + {due}, now(), now() - interval '1 hour', 'topic', '{{"operation": "start_workflow"}}', '{{"n": 1}}',
           {token}, case when {token}::bigint is not null then now() end, case when {token}::bigint is not null then 1 end, 0
    from generate_series(1, {rows}) n
"""
PENDING = SEED.replace("{due}", "n * interval '1 millisecond' - interval '30 minutes'").replace("{token}", "null")
BEYOND = SEED.replace("{due}", "n * interval '1 millisecond' + interval '30 minutes'").replace("{token}", "{TOKEN}")


RESTRICTED = """
    insert into outbox.message (message_id, due_at, available_at, created_at, topic, restricted, ready, key, tenant)
    select outbox.new_message_id(), now() - interval '1 hour' + n * interval '1 ms', now(), now(), 'topic.' || n % 3, true, {ready}, {key}, {tenant}
    from generate_series(1, {rows}) n
"""
LANES = {
    "each a key": ("'k' || n", "null"),
    "one hot key": ("'hot'", "null"),
    "five tenants": ("null", "'t' || n % 5"),
    "keys of tenants": ("'k' || n % 1000", "'t' || n % 5"),
    "no lane": ("null", "null"),
}
CLAIM_RESTRICTED = "100, 60, 1, 2, null, '{begin}', 8, 8388608"


@dataclass
class Work:
    """What a statement did: buffers touched, and rows read by the scans of each table."""

    buffers: int
    scans: list[dict[str, Any]]
    kinds: set[str]

    @property
    def rows_read(self) -> int:
        """Rows that came out of scans of the hot table or were filtered away in them."""
        removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        return sum(
            int((s["Actual Rows"] + sum(s.get(name, 0) for name in removed)) * s["Actual Loops"]) for s in self.scans
        )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        await connection.execute("alter table outbox.message set (autovacuum_enabled = false)")
        yield connection


async def work(db: Connection, name: str, arguments: str) -> Work:
    """Run a prepared statement with a generic and with a custom plan, and return the work of the costlier.

    It runs for real, in a transaction that is rolled back. The driver's statements are prepared: after five
    executions the server may choose either.
    """
    works = [await _work(db, name, arguments, mode) for mode in ("force_generic_plan", "force_custom_plan")]
    return Work(
        max(w.buffers for w in works), max(works, key=lambda w: w.rows_read).scans, works[0].kinds | works[1].kinds
    )


async def _work(db: Connection, name: str, arguments: str, mode: str) -> Work:
    transaction = db.transaction()
    await transaction.start()
    try:
        await db.execute(f"set local plan_cache_mode = {mode}")
        [[text]] = await db.fetch(f'explain (analyze, buffers, format json) execute "{name}" ({arguments})')
    finally:
        await transaction.rollback()
    plan = json.loads(text)[0]["Plan"]
    scans = [node for node in nodes(plan) if node.get("Relation Name") == "message" and "Scan" in node["Node Type"]]
    return Work(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], scans, {scan["Node Type"] for scan in scans})


async def prepare(db: Connection) -> None:
    for name, types in TYPES.items():
        await db.execute(f'prepare "{name}" ({types}) as {query(name)}')


CLAIM = "100, 60, 1, null, '-infinity', 0, 8388608"
OUTLOOK = "null, 1"
PRESENT = """
    insert into outbox.worker (name, version, presence, present_at)
    select 'w' || n, '', 1000 + n, now() + interval '1 hour' from generate_series(1, 20) n
"""
CLAIMS = pytest.mark.parametrize("claim", ["claim/plain", "claim/ruled"])


def repeated(item: str, n: str) -> str:
    return f"rtrim(repeat('{item},', {n}), ',')"


SETTLES: dict[str, Callable[[str, str], str]] = {
    "settle/complete": lambda ids, n: f"{ids.split(', ')[0]}, {', '.join(repeated(x, n) for x in '7wr')}, ',', '{{}}', true, null, {repeated('1', n)}, '{{o}}', '{{w}}', '{{null}}', '{{q}}'",
    "settle/retry": lambda ids, n: f"{ids}, array_fill(5::float8, array[{n}]), array_fill(true, array[{n}]), array_fill('k'::text, array[{n}]), array_fill('d'::text, array[{n}]), null",
    "settle/bury": lambda ids, n: f"{ids}, array_fill('rejected'::text, array[{n}]), array_fill(true, array[{n}]), array_fill('k'::text, array[{n}]), array_fill('d'::text, array[{n}]), null",
    "settle/release": lambda ids, _: f"{ids}, null",
}  # fmt: skip
statistics = pytest.mark.parametrize("analyzed", ["now", "when-empty", "never"])


async def seed(db: Connection, statement: str, *, analyzed: str) -> None:
    await db.execute("truncate outbox.message")
    await db.execute("set enable_seqscan = off")  # as the worker's sessions have it
    if analyzed == "when-empty":
        await db.execute("vacuum (analyze) outbox.message")
    await db.execute(statement)
    if analyzed == "now":
        await db.execute("vacuum (analyze) outbox.message")


async def rows_read(db: Connection) -> tuple[int, int]:
    """Rows of the hot table that sequential scans have read, and entries of its indexes, by the server's own count."""
    await db.execute("select pg_stat_force_next_flush()")
    row = await db.fetchrow(
        "select t.seq_tup_read, (select sum(i.idx_tup_read) from pg_stat_user_indexes i where i.relid = t.relid)"
        " from pg_stat_user_tables t where t.relid = 'outbox.message'::regclass"
    )
    assert row is not None
    return int(row[0]), int(row[1])


@needs_postgres(15)  # pg_stat_force_next_flush
@pytest.mark.parametrize("rows", [0, 1, 30, 500])
async def test_plans_made_on_a_small_table_do_not_read_a_backlog_end_to_end(
    db: Connection, database: str, rows: int
) -> None:
    """A sudden backlog comes minutes before the table is analyzed; the worker's statements are prepared by then."""
    await db.execute(BEYOND.format(rows=rows, TOKEN="null"))
    await db.execute("analyze outbox.message")
    async with open_pool(database, size=1, application_name="test", statement_timeout_s=60) as pool:
        store = Store(pool, "outbox")
        worker_id = await Workers(pool, "outbox").register("w", "1", {})

        async def every_statement() -> None:
            batch = await store.claim(4, lease_s=60, worker_id=worker_id)
            one, two, three, four = batch.messages
            assert not await store.complete([(one, Delivered("w", "r"))])
            assert not await store.retry([Retry(two, 60, counted=True, kind="K", detail="d")])
            assert not await store.bury([Burial(three, "rejected", counted=True, kind="K", detail="d")])
            assert not await store.release([four])

        for _ in range(10):  # from the sixth execution on the server may keep a plan
            await Enqueuing(pool, "outbox").enqueue_many(b"[" + b",".join([b'{"topic": "small"}'] * 4) + b"]")
            await every_statement()
        await db.execute(PENDING.format(rows=20_000))
        await pool.execute("select pg_stat_force_next_flush()")
        scanned, entries = await rows_read(db)
        await every_statement()
        await pool.execute("select pg_stat_force_next_flush()")
        scanned_then, entries_then = await rows_read(db)
        assert scanned_then == scanned
        assert entries_then - entries <= 40, "a join that reads a whole index is no better"


@statistics
@CLAIMS
async def test_claim_reads_the_batch_and_not_the_backlog(db: Connection, analyzed: str, claim: str) -> None:
    await prepare(db)
    if claim == "claim/ruled":
        await db.execute("select outbox.pause(topic => 'other'), outbox.limit_topic('another', 1000)")
    works = []
    for rows in (FEW, MANY):
        await seed(db, PENDING.format(rows=rows), analyzed=analyzed)
        works.append(await work(db, claim, CLAIM))
    few, many = works
    assert "Seq Scan" not in many.kinds | few.kinds
    assert many.rows_read <= 200  # the candidates, and the same by their place
    assert many.buffers <= 3 * few.buffers


@statistics
@CLAIMS
async def test_claim_behind_a_place_reads_no_message_before_it(db: Connection, analyzed: str, claim: str) -> None:
    """What is leased keeps its place in the order; a claim that follows a full one does not go through it again."""
    await prepare(db)
    if claim == "claim/ruled":
        await db.execute("select outbox.limit_topic('another', 1000)")
    works = []
    for rows in (FEW, MANY):
        await seed(db, PENDING.format(rows=rows), analyzed=analyzed)
        await db.execute("update outbox.message set leased_until = now() + interval '1 hour', lease_token = 7")
        place = "(select date_part('epoch', max(due_at)) from outbox.message), (select max(seq) from outbox.message)"
        due_s, seq = await db.fetchrow(f"select {place}")
        await db.execute(PENDING.format(rows=10).replace("30 minutes", "1 minute"))
        works.append(await work(db, claim, f"100, 60, 1, null, {due_s}, {seq}, 8388608"))
    few, many = works
    assert "Seq Scan" not in many.kinds | few.kinds
    assert 10 <= many.rows_read <= 20
    assert many.buffers <= 3 * few.buffers


@statistics
async def test_claim_and_outlook_read_nothing_of_what_is_scheduled(db: Connection, analyzed: str) -> None:
    """None is due but the ten that are: 50,000 rows lie in the future."""
    await prepare(db)
    works: list[list[Work]] = []
    for rows in (FEW, MANY):
        await seed(db, BEYOND.format(rows=rows, TOKEN="null"), analyzed=analyzed)
        await db.execute(PENDING.format(rows=10))
        works.append([await work(db, "claim/plain", CLAIM), await work(db, "claim/outlook", OUTLOOK)])
    for few, many in zip(*works, strict=True):
        assert "Seq Scan" not in many.kinds | few.kinds
        assert many.rows_read <= 21
        assert many.buffers <= 3 * few.buffers


@statistics
async def test_outlook_reads_no_backlog(db: Connection, analyzed: str) -> None:
    await prepare(db)
    works = []
    for rows in (FEW, MANY):
        await seed(db, PENDING.format(rows=rows), analyzed=analyzed)
        works.append(await work(db, "claim/outlook", OUTLOOK))
    few, many = works
    assert "Seq Scan" not in many.kinds | few.kinds
    assert many.rows_read <= 3
    assert many.buffers <= 3 * few.buffers


@statistics
async def test_looking_for_the_dead_reads_no_backlog(db: Connection, analyzed: str) -> None:
    """With twenty other workers, one of which holds messages all over the place."""
    await prepare(db)
    await db.execute(PRESENT)
    works: list[list[Work]] = []
    for rows in (FEW, MANY):
        await seed(db, PENDING.format(rows=rows), analyzed=analyzed)
        await db.execute(RESTRICTED.format(rows=rows, key="null", tenant="'t'", ready="true"))
        await db.execute(
            "update outbox.message set worker_id = 2, leased_until = now() + interval '1 hour' where seq % 1000 = 0"
        )
        works.append([await work(db, "claim/outlook", OUTLOOK), await work(db, "presence/absent", "1, 0")])
    for few, many in zip(*works, strict=True):
        assert "Seq Scan" not in many.kinds | few.kinds
        assert many.rows_read <= 5
        assert many.buffers <= 3 * few.buffers
    assert works[1][1].scans == []


@statistics
@pytest.mark.parametrize("restricted", [False, True])
async def test_seeing_that_others_hold_messages_reads_no_more_than_is_leased(
    db: Connection, analyzed: str, restricted: bool
) -> None:
    """Everything else is scheduled, or parked."""
    await prepare(db)
    await db.execute(PRESENT)
    works = []
    for rows in (FEW, MANY):
        beyond = RESTRICTED.format(rows=rows, key="'hot'", tenant="null", ready="false").replace(
            "- interval", "+ interval"
        )
        await seed(db, beyond if restricted else BEYOND.format(rows=rows, TOKEN="null"), analyzed=analyzed)
        await db.execute(PENDING.format(rows=100))
        await db.execute(
            "update outbox.message set worker_id = 2, leased_until = now() + interval '1 hour' where due_at <= now()"
        )
        if restricted:
            await db.execute(
                "update outbox.message set restricted = true, ready = false, in_flight = true, due_at = leased_until where worker_id = 2"
            )
        works.append(await work(db, "claim/outlook", OUTLOOK))
    few, many = works
    assert "Seq Scan" not in many.kinds | few.kinds
    assert many.rows_read <= 100 + 100 + 3
    assert many.buffers <= 3 * few.buffers


async def test_rescue_reads_the_table_once_and_only_for_the_dead(db: Connection) -> None:
    await prepare(db)
    await db.execute(PRESENT)
    await seed(db, PENDING.format(rows=FEW), analyzed="now")
    await db.execute(
        "update outbox.message set worker_id = 2, leased_until = now() + interval '1 hour' where seq % 10 = 0"
    )
    first = await db.fetchval("select min(worker_id) from outbox.worker")
    dead = f"array[{first}, {first + 1}]::bigint[], array[1001, 1002]::bigint[], null"
    assert (await work(db, "presence/rescue", dead)).rows_read <= FEW
    await db.execute("update outbox.worker set presence = presence + 100")  # they have come back
    assert (await work(db, "presence/rescue", dead)).rows_read == 0


@statistics
@pytest.mark.parametrize("lanes", LANES)
async def test_restricted_claim_reads_the_batch_and_not_the_backlog(db: Connection, analyzed: str, lanes: str) -> None:
    """With everything on: keys, tenants, a pause and a limit."""
    await prepare(db)
    await db.execute("select outbox.pause(topic => 'topic.1'), outbox.limit_topic('topic.2', 1000)")
    key, tenant = LANES[lanes]
    works = []
    for rows in (FEW, MANY):
        await seed(db, RESTRICTED.format(rows=rows, key=key, tenant=tenant, ready="true"), analyzed=analyzed)
        works += [
            await work(db, "claim/restricted", CLAIM_RESTRICTED.format(begin=begin)) for begin in ("", "kk5", "tt2")
        ]
    few, many = max(works[:3], key=lambda w: w.buffers), max(works[3:], key=lambda w: w.rows_read)
    # For each of the batch: its lane, itself, the first eight of its key, and its place again to be written.
    assert many.rows_read <= (7 + 8) * 100
    assert max(work.buffers for work in works[3:]) <= 3 * few.buffers


@statistics
async def test_claims_read_nothing_of_what_is_parked(db: Connection, analyzed: str) -> None:
    await prepare(db)
    works: list[list[Work]] = []
    for rows in (FEW, MANY):
        await seed(db, RESTRICTED.format(rows=rows, key="'hot'", tenant="null", ready="false"), analyzed=analyzed)
        await db.execute("update outbox.message set due_at = 'infinity'")
        await db.execute("vacuum outbox.message")
        await db.execute(PENDING.format(rows=10))
        works.append(
            [
                await work(db, "claim/plain", CLAIM),
                await work(db, "claim/restricted", CLAIM_RESTRICTED.format(begin="")),
            ]
        )
    for few, many in zip(*works, strict=True):
        assert "Seq Scan" not in many.kinds
        assert many.rows_read <= 21
        assert many.buffers <= 3 * few.buffers


@statistics
@pytest.mark.parametrize("batch", [100, 500])
async def test_settle_reads_its_batch_and_not_the_table(db: Connection, analyzed: str, batch: int) -> None:
    await prepare(db)
    works: dict[str, list[Work]] = {name: [] for name in SETTLES}
    for rows in (FEW, MANY):
        await seed(db, BEYOND.format(rows=rows, TOKEN="7"), analyzed=analyzed)
        # Spread over the table, as the rows of a claim are after a while.
        ids = await db.fetchval(
            "select array_agg(message_id) from (select message_id from outbox.message where seq % $1 = 0 limit $2) m",
            rows // batch,
            batch,
        )
        places = "'{" + ",".join(map(str, ids)) + "}'"
        held = f"{places}, array_fill(7::bigint, array[{batch}])"
        for name, arguments in SETTLES.items():
            works[name].append(await work(db, name, arguments(held, str(batch))))
    for name, (few, many) in works.items():
        assert "Seq Scan" not in many.kinds, name
        assert many.rows_read <= batch, name
        # Many more rows: the index is a level deeper, and each row lies on a page of its own.
        assert many.buffers <= 3 * few.buffers + 2 * batch, name
