"""What becomes of rows: each one message, refused with a reason, or already there; and a dry run says so before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import orjson
import pytest

from outbox.cli.session import with_store
from outbox.loops.signals import Stop
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.store.migrations import migrate
from outbox_temporal.importing.journal import Books
from outbox_temporal.importing.mapping import load
from outbox_temporal.importing.report import ImportReport
from outbox_temporal.importing.rollback import Rollback
from outbox_temporal.importing.rows import Row
from outbox_temporal.importing.source import RowSource
from outbox_temporal.importing.verify import pages
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.running import counts, fetch, settings
from tests.support.sql import connected
from tests.temporal.importing.engine import (
    MAPPING,
    build,
    exactly_once,
    messages,
    moved,
    reasons,
    rolled_back,
    written,
)

HELD = """
    update outbox.message set leased_until = now() + interval '1 hour', lease_token = 1
    where message_id in (select message_id from outbox.message order by seq limit $1::int)
"""
ANY = """\
name = "any"
[source]
table = "t"
identity = "id"
{source}
[start]
workflow = "{workflow}"
workflow_id = "{workflow_id}"
{start}
"""


def mapping(source: str = "", start: str = "", workflow: str = "W", workflow_id: str = "w-{id}") -> str:
    """A mapping of the table `t`. `start` may go on with further tables."""
    return ANY.format(source=source, start=start, workflow=workflow, workflow_id=workflow_id)


async def table(dsn: str, columns: str, *rows: str) -> None:
    """Make the table `t` with these rows, in SQL."""
    async with connected(dsn) as connection:
        await connection.execute(f"create table t ({columns})")
        for row in rows:
            await connection.execute(f"insert into t values ({row})")


async def test_each_row_becomes_one_message_in_the_order_of_its_identity(database: str, tmp_path: Path) -> None:
    await build(database, 1200)
    report = await moved(database, written(tmp_path), batch=250)
    assert report.counts == {"moved": 1200, "already there": 0, "refused": 0}
    assert (report.rows, report.done) == (1200, 1200)
    found = await messages(database)
    assert [message["target"]["workflow_id"] for message in found] == [f"approval-wi-{n:06}" for n in range(1, 1201)]
    assert found[41]["target"] == {
        "operation": "start_workflow",
        "workflow": "Approval",
        "workflow_id": "approval-wi-000042",
        "task_queue": "unserved",
        "on_duplicate": "reject",
    }
    assert found[41]["topic"] == "import.old-engine"
    assert found[41]["payload"]["context"] == {"requestId": "r-42", "total": 1.5}
    assert '"amount":0.42000000000000000000' in found[41]["text"]  # the digits as PostgreSQL has them
    assert '"total": 1.50' in found[41]["text"]
    assert await exactly_once(database, 1200)


async def test_run_again_an_import_moves_only_what_is_new(database: str, tmp_path: Path) -> None:
    await build(database, 30)
    path = written(tmp_path)
    await moved(database, path)
    async with connected(database) as connection:
        await connection.execute("""insert into engine."WorkflowInstance" values ('a first', 't1', null, 'u', 's')""")
    report = await moved(database, path)
    assert report.counts == {"moved": 1, "already there": 30, "refused": 0}
    assert await exactly_once(database, 31)


async def test_the_source_may_be_another_database_and_is_not_written_to(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    await build(empty_database, 40)
    assert (await moved(database, written(tmp_path), source=empty_database)).counts["moved"] == 40
    assert (await moved(database, written(tmp_path), source=empty_database)).counts["already there"] == 40
    assert await exactly_once(database, 40)


async def test_key_tenant_memo_and_all_fields_of_a_route_are_filled_from_columns(database: str, tmp_path: Path) -> None:
    await table(
        database,
        "id int, kind text, org text, deep json",
        "1, 'A', 'acme', '{\"a\": [7.10]}'",
        "2, 'B', null, '{\"a\": [8]}'",
    )
    text = mapping(workflow="{kind}Flow", start="execution_timeout = '2d'\n[start.memo]\nwas = '{id}'\n") + (
        "[message]\ntopic = 'moved'\nkey = 'k-{id}'\ntenant = '{org}'\npriority = 3\n"
        "[input]\ncolumns = ['id', 'org']\n[input.fields]\nfirst = '{deep.a.0}'\nall = '{deep}'\ntext = 'no. {id}'\n"
        "moved = true\nnothing = '{org}'\n"
    )
    await moved(database, written(tmp_path, text))
    first, second = await messages(database)
    assert [first[name] for name in ("topic", "key", "tenant", "priority")] == ["moved", "k-1", "acme", 3]
    assert first["target"]["workflow"] == "AFlow"
    assert first["target"]["memo"] == {"was": 1}
    assert first["target"]["execution_timeout_s"] == 172_800
    assert first["text"] == (
        '{"id":1,"org":"acme","first":7.10,"all":{"a": [7.10]},"text":"no. 1","moved":true,"nothing":"acme"}'
    )
    assert (second["tenant"], second["payload"]["nothing"]) == (None, None)  # null is no tenant, and null in the input


@pytest.mark.parametrize(
    ("how", "payload"),
    [
        ("column = 'context'", '{"a": 1.50}'),
        ("columns = ['id']", '{"id":12345678901234567890123}'),
        ("columns = '*'\nfields.id = 1", '{"id":1,"context":{"a": 1.50}}'),
    ],
)
async def test_the_input_is_what_the_mapping_says_with_every_digit(
    database: str, tmp_path: Path, how: str, payload: str
) -> None:
    await table(database, "id numeric, context text", "12345678901234567890123, '{\"a\": 1.50}'")
    await moved(database, written(tmp_path, mapping(source='json = ["context"]') + f"[input]\n{how}\n"))
    [message] = await messages(database)
    assert message["text"] == payload


async def test_many_arguments_are_an_array_and_none_is_no_payload(database: str, tmp_path: Path) -> None:
    await table(database, "id int, list json", "1, '[1, 2]'", "2, '{}'")
    path = written(tmp_path, mapping(start="arguments = 'many'\n[input]\ncolumn = 'list'"))
    report = await moved(database, path)
    assert reasons(report) == {"2": "refused: the input is not an array, and the mapping says arguments = 'many'"}
    assert [message["text"] for message in await messages(database)] == ["[1, 2]"]


REFUSED = {
    "a null identity": ({"id": "null"}, "its id is null, and nothing else identifies it"),
    "an empty identity": ({"id": "''"}, "its id is empty, and nothing else identifies it"),
    "a long identity": ({"id": "repeat('i', 1001)"}, "its id is 1001 bytes long, the limit is 1000"),
    "bad JSON": ({"context": """'{"tenant": '"""}, "context is not JSON: "),
    "no JSON": ({"context": "''"}, "context is not JSON: "),
    "a missing value": ({"name": "null"}, "workflow_id: {name} is null"),
    "an empty value": ({"name": "''"}, "workflow_id: {name} is empty"),
    "a missing field": ({"context": "'{}'"}, "tenant: {context.tenant} is missing in the row"),
    "a long workflow id": ({"name": "repeat('w', 1001)"}, "workflow_id: is 1001 bytes long, the limit is 1000"),
    "NUL in a name": ({"context": r"""'{"tenant": "a\u0000b"}'"""}, "its tenant contains the character NUL"),
    "NUL in the input": ({"context": r"""'{"tenant": "t", "a": "\u0000"}'"""}, "unsupported Unicode escape sequence"),
    "half a character": ({"context": r"""'{"tenant": "\ud800"}'"""}, "context is not JSON: "),
    "a long tenant": (
        {"context": "json_build_object('tenant', repeat('t', 1001))"},
        "its tenant is 1001 bytes long, the limit is 1000",
    ),
    "an empty tenant": ({"context": """'{"tenant": ""}'"""}, "tenant: {context.tenant} is empty"),
    "an array for a tenant": ({"context": """'{"tenant": []}'"""}, "tenant: {context.tenant} is an array"),
    "a large payload": (
        {"context": "json_build_object('tenant', 't', 'a', repeat('p', 2096128))"},
        "bytes long, the limit is 2096128",
    ),
    "a long task queue": (
        {"queue": "repeat('q', 1001)"},
        "start_workflow: task_queue is 1002 bytes long, the limit is 1000",
    ),
    "a large memo": ({"note": "repeat('m', 1310720)"}, "target is 1310"),
    "a deep nest": (
        {"context": """'{"tenant": "t", "a": ' || repeat('[', 2000) || repeat(']', 2000) || '}'"""},
        "context is not JSON: ",
    ),
}
"""What a row has in place of what does well, in SQL, and why it is refused."""
FRAGILE = mapping(
    source='json = ["context"]',
    workflow_id="{name}",
    start="task_queue = 'q{queue}'\n[start.memo]\nnote = 'n{note}'\n[message]\ntenant = '{context.tenant}'",
)


@pytest.mark.parametrize("dry_run", [True, False])
async def test_every_kind_of_bad_row_is_refused_with_its_reason_and_takes_no_other_along(
    database: str, tmp_path: Path, dry_run: bool
) -> None:
    await table(database, "id text, name text, context text, queue text default '0', note text default '0'")
    async with connected(database) as connection:
        for what, changed in {
            **{what: row for what, (row, _) in REFUSED.items()},
            "a good": {},
            "the last": {},
        }.items():
            row = {"id": f"'{what}'", "name": f"'{what}'", "context": """'{"tenant": "t"}'"""} | changed
            await connection.execute(f"insert into t ({', '.join(row)}) values ({', '.join(row.values())})")
    report = await moved(database, written(tmp_path, FRAGILE), dry_run=dry_run)
    assert report.counts == {
        "would be moved" if dry_run else "moved": 2,
        "already there": 0,
        "refused": len(REFUSED),
    }
    said = [(finding.identity, finding.detail) for finding in report.findings]
    for what, (_, reason) in REFUSED.items():
        assert any(reason in text for identity, text in said if identity in (what, "", "i" * 1001)), (what, said)
    assert [m["target"]["workflow_id"] for m in await messages(database)] == ([] if dry_run else ["a good", "the last"])


@pytest.mark.parametrize("dry_run", [True, False])
async def test_rows_that_share_an_identity_are_all_refused_and_of_a_workflow_id_the_first_row_wins(
    database: str, tmp_path: Path, dry_run: bool
) -> None:
    rows = ["1, 'a'", "2, 'b'", "2, 'c'", "3, 'd'", "4, 'a'", "5, 'e'", "6, 'd'"]
    await table(database, "id int, name text", *rows)
    report = await moved(database, written(tmp_path, mapping(workflow_id="{name}")), dry_run=dry_run, batch=2)
    assert [tuple(finding[:3]) for finding in report.findings] == [
        ("2", "refused", "2 rows have this id"),
        ("2", "refused", "2 rows have this id"),
        ("4", "refused", "its workflow id 'a' is that of row '1'" + ("" if dry_run else " of the import 'any'")),
        ("6", "refused", "its workflow id 'd' is that of row '3'" + ("" if dry_run else " of the import 'any'")),
    ]


async def test_the_same_rows_under_another_name_are_refused(database: str, tmp_path: Path) -> None:
    await build(database, 3)
    await moved(database, written(tmp_path))
    report = await moved(database, written(tmp_path, MAPPING.replace("old-engine", "renamed")))
    assert report.counts == {"moved": 0, "already there": 0, "refused": 3}
    assert report.findings[0].detail == (
        "its workflow id 'approval-wi-000001' is that of row 'wi-000001' of the import 'old-engine'"
    )


async def test_another_identity_for_an_import_that_has_begun_is_refused(database: str, tmp_path: Path) -> None:
    await build(database, 3)
    await moved(database, written(tmp_path))
    path = written(tmp_path, MAPPING.replace('identity = "id"', 'identity = "initiatorId"'))
    with pytest.raises(
        ConfigurationError, match=r"old\.toml:5: the import 'old-engine' has begun with the identity id"
    ):
        await moved(database, path)


async def test_a_dry_run_changes_nothing_and_shows_what_a_row_would_become(database: str, tmp_path: Path) -> None:
    await build(database, 700)
    report = await moved(database, written(tmp_path), dry_run=True)
    assert report.counts == {"would be moved": 700, "already there": 0, "refused": 0}
    assert await counts(database) == {"message": 0, "history": 0, "dead_letter": 0}
    assert await fetch(database, "select from outbox.import") == []
    [first, *_] = report.samples
    await moved(database, written(tmp_path))
    [became, *_] = await messages(database)
    reported = orjson.loads(orjson.dumps(first["message"]))
    assert (len(report.samples), first["identity"]) == (3, "wi-000001")
    assert reported == {name: became[name] for name in ("topic", "target", "payload")}
    assert (await moved(database, written(tmp_path), dry_run=True)).counts["already there"] == 700


async def test_two_runs_at_once_move_each_row_once(database: str, tmp_path: Path) -> None:
    await build(database, 2000)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(lambda: moved(database, written(tmp_path), batch=50))
    assert await exactly_once(database, 2000)


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_run_that_began_before_a_rollback_moves_nothing_after_it(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    await build(database, 20)
    path = written(tmp_path)
    batches = RowSource.batches

    async def slowly(self: RowSource, size: int) -> AsyncIterator[list[Row]]:
        async for rows in batches(self, size):
            yield rows
            await fetch(database, HELD, kept)  # a row of the first batch has to stay, or none
            await rolled_back(database, path)

    monkeypatch.setattr(RowSource, "batches", slowly)
    with pytest.raises(OutboxError, match="the import 'old-engine' was rolled back during this run: import again"):
        await moved(database, path, batch=10)
    assert (await counts(database))["message"] == kept


async def test_a_rollback_during_another_takes_its_place(database: str, tmp_path: Path) -> None:
    await build(database, 3)
    path = written(tmp_path)
    await moved(database, path)
    mapping = load(path)

    async def both(books: Books) -> None:
        found = await books.read_import("old-engine")
        assert found is not None
        first = Rollback(books, found, ImportReport.of(mapping, "test"), started="list", lookup=None, dry_run=False)
        first._number = await books.begin_rollback(found.import_id)
        second = await books.begin_rollback(found.import_id)
        [page] = [page async for page in pages(books, found.import_id, Stop())]
        with pytest.raises(OutboxError, match="another rollback of 'old-engine' has begun"):
            await first._page(page)
        await books.end_rollback(found.import_id, first._number)
        assert await books.read_import("old-engine") == found._replace(rolling_back=True, rollbacks=second)

    await with_store(settings(database), Books, both)


async def test_another_schema_does_as_well(empty_database: str, tmp_path: Path) -> None:
    await migrate(empty_database, "team_events")
    await build(empty_database, 20)
    assert (await moved(empty_database, written(tmp_path), batch=7, schema_name="team_events")).counts["moved"] == 20
    [row] = await fetch(empty_database, "select count(*) as n from team_events.message")
    assert row["n"] == 20


async def test_a_query_that_fails_on_a_row_ends_the_run_with_one_line(database: str, tmp_path: Path) -> None:
    await table(database, "id int", *map(str, range(1, 31)))
    text = mapping().replace('table = "t"', 'query = "q.sql"')
    path = written(tmp_path, text, q="select id, 1 / (25 - id) as x from t")
    with pytest.raises(OutboxError, match=r"old\.toml:3: q\.sql: read the rows: division by zero"):
        await moved(database, path)
    assert await exactly_once(database, 0)


@needs_pgbouncer
async def test_both_databases_may_be_behind_a_pooler_in_transaction_mode(
    postgres: PostgresServer, database: str, empty_database: str, tmp_path: Path
) -> None:
    await build(empty_database, 300)
    with pgbouncer(postgres, "transaction") as bouncer:
        ways = (bouncer.led(database), written(tmp_path))
        report = await moved(*ways, source=bouncer.led(empty_database), batch=50)
        assert report.counts["moved"] == 300
        assert (await rolled_back(*ways)).counts == {"messages cancelled": 300}
        assert (await moved(*ways, source=bouncer.led(empty_database))).counts["moved"] == 300
