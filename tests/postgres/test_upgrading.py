"""A schema that a later version has migrated, and a worker of this version: the way back, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio import to_thread

from outbox.model.errors import SchemaError
from outbox.model.sink import Rejected
from outbox.store import migrations as module
from outbox.store.migrations import inspect, migrate, require_current
from outbox.store.sql import Migration, migrations, parsed
from outbox_workflows.shared.migrations import APPLICATION
from tests.cli.test_cli import outbox
from tests.postgres.test_migrate import exercise
from tests.support.eventually import eventually
from tests.support.examining import examined, safe, wrong
from tests.support.probing import ask, free_port
from tests.support.processes import worker_process
from tests.support.running import counts, enqueue, fetch, running
from tests.support.sql import connected

LEVEL = migrations()[-1].version
NEXT = LEVEL + 1
ADDITIVE = """
-- Expands only: what this version reads, writes and calls stays.
-- serves: {level}
alter table outbox.message add column colour text;
alter table outbox.history add column colour text not null default 'red';
alter table outbox.dead_letter add column colour text;
create table outbox.extra (id bigint generated always as identity primary key);
create function outbox.extra_of(topic text) returns text language sql immutable return upper(topic);
create index message_colour on outbox.message (colour) where colour is not null;
"""
BREAKING = "alter table outbox.message rename column topic to subject;"
NULL_SINK = {"OUTBOX_SINK": "tests.support:null_sink", "OUTBOX_HTTP_HOST": "127.0.0.1"}
STILL_SERVES = f"schema 'outbox' is newer than this version ({NEXT:04d}_next), and still serves it"


def following(text: str, version: int = NEXT) -> Migration:
    return parsed(version, "next", text.format(level=LEVEL))


@contextmanager
def later_version(*more: Migration, folder: str = "migrations") -> Iterator[None]:
    """Be the version that has these migrations too."""
    with pytest.MonkeyPatch.context() as patch:
        known = {folder: more}
        patch.setattr(module, "migrations", lambda folder: (*migrations(folder), *known.get(folder, ())))
        yield


@pytest.fixture
async def upgraded(database: str) -> str:
    """The DSN of a database that the next version has migrated, and that still serves this one."""
    with later_version(following(ADDITIVE)):
        assert [step.version for step in await migrate(database)] == [NEXT]
    return database


async def test_a_worker_of_this_version_starts_and_works_on_the_next_schema(upgraded: str, tmp_path: Path) -> None:
    port = free_port()
    with worker_process(tmp_path, "old", DATABASE_URL=upgraded, OUTBOX_HTTP_PORT=str(port), **NULL_SINK) as worker:
        await worker.logged("worker started")

        async def look() -> int:
            return ask(port, "/readyz").status

        await eventually(look, lambda status: status == 200)
        assert ask(port, "/readyz").parts == {
            **dict.fromkeys(("relay", "database", "sink"), "ok"),
            "schema": f"ok: {STILL_SERVES}",
        }
        healthy = await outbox(upgraded, "health", OUTBOX_HTTP_PORT=str(port))
        assert (healthy.code, healthy.out) == (0, "ready\n")
        await enqueue(upgraded, 3)
        settled = await eventually(lambda: counts(upgraded), lambda found: found["history"] == 3)
        assert settled == {"message": 0, "history": 3, "dead_letter": 0}
        assert worker.stop() == 0


async def test_every_statement_of_this_version_works_on_the_next_schema(upgraded: str) -> None:
    await exercise(upgraded, "outbox")


async def test_a_worker_that_runs_while_the_next_version_migrates_works_on_and_stays_ready(database: str) -> None:
    port = free_port()
    async with running(database, http_port=port, http_host="127.0.0.1") as worker:
        await enqueue(database, 2)
        await worker.wait_completed(2)
        with later_version(following(ADDITIVE)):
            await migrate(database)
        worker.sink.answer = lambda _: Rejected("Never", "not this one")
        await enqueue(database)
        await worker.wait_buried()

        async def said() -> str:
            return (await to_thread.run_sync(ask, port, "/readyz")).parts["schema"]

        await eventually(said, lambda schema: schema == f"ok: {STILL_SERVES}")
        assert (await to_thread.run_sync(ask, port, "/readyz")).status == 200


async def test_what_people_ask_says_that_a_newer_schema_still_serves(upgraded: str) -> None:
    status = await outbox(upgraded, "migrate", "--status")
    assert status.code == 0
    assert status.out.splitlines()[-2:] == [f"newer    {NEXT:04d}_next", STILL_SERVES]
    findings = await examined(upgraded)
    assert (wrong(findings), safe(findings)) == ({}, True)
    [said] = [finding.detail for finding in findings if finding.what == "schema version"]
    assert said == f"outbox is newer than this version ({NEXT:04d}_next), and still serves it"
    assert (await outbox(upgraded, "status")).code == 0


async def test_migrating_back_leaves_a_newer_schema_as_it_is(upgraded: str) -> None:
    """A rollback of a release runs the older version's migrate job, which must not fail."""
    done = await outbox(upgraded, "migrate")
    assert (done.code, done.out) == (0, f"{STILL_SERVES}: nothing to do\n")
    assert (await inspect(upgraded))[-1].state == "newer"
    with later_version(following(ADDITIVE)):
        assert await migrate(upgraded) == []


async def test_reset_refuses_a_newer_schema_with_unknown_tables(upgraded: str) -> None:
    done = await outbox(upgraded, "reset", "--yes-delete-everything")
    assert done.code == 3
    assert "but a reset needs the version that wrote it" in done.fault


async def test_a_breaking_migration_is_refused_by_name(database: str) -> None:
    with later_version(following(BREAKING)):
        await migrate(database)
    done = await outbox(database, "run", **NULL_SINK)
    assert done.code == 3
    assert f"newer than this version: it has migration {NEXT:04d}_next, which does not serve it; use" in done.err
    assert (await outbox(database, "migrate", "--status")).code == 3
    assert (await outbox(database, "migrate")).code == 3


@pytest.mark.parametrize(
    ("second", "serves"),
    [("-- serves: {level}", True), ("-- serves: " + str(NEXT), False), ("", False)],
    ids=["keeps the window", "closes it", "says nothing"],
)
async def test_several_migrations_serve_only_what_each_of_them_serves(
    upgraded: str, second: str, *, serves: bool
) -> None:
    with later_version(following(ADDITIVE), following(f"{second}\nselect 1;", NEXT + 1)):
        await migrate(upgraded)
    async with connected(upgraded) as connection:
        if serves:
            assert f"{NEXT:04d}_next, {NEXT + 1:04d}_next" in str(await require_current(connection))
        else:
            with pytest.raises(SchemaError, match=f"it has migration {NEXT + 1:04d}_next, which does not serve it"):
                await require_current(connection)


@pytest.mark.parametrize(
    ("strange", "fault"),
    [
        (f"delete from outbox.migration where version = {LEVEL}", "newer than this version"),
        (f"update outbox.migration set version = 0 where version = {NEXT}", "made by an unreleased revision"),
    ],
    ids=["lacks one of ours", "has one that is unknown and not newer"],
)
async def test_only_what_comes_after_ours_may_be_unknown(upgraded: str, strange: str, fault: str) -> None:
    await fetch(upgraded, strange)
    async with connected(upgraded) as connection:
        with pytest.raises(SchemaError, match=fault):
            await require_current(connection)
    with pytest.raises(SchemaError, match=fault):
        await migrate(upgraded)


async def test_an_edit_is_refused_also_in_a_newer_schema(upgraded: str) -> None:
    await fetch(upgraded, "update outbox.migration set checksum = 'another' where version = 2")
    async with connected(upgraded) as connection:
        with pytest.raises(SchemaError, match="0002_checks was edited"):
            await require_current(connection)


async def test_the_schema_of_the_families_has_a_way_back_too(application_database: str) -> None:
    last = migrations("application")[-1].version
    following = parsed(last + 1, "next", f"-- serves: {last}\ncreate table app.extra ();")
    with later_version(following, folder="application"):
        await migrate(application_database, lineage=APPLICATION)
    async with connected(application_database) as connection:
        remark = await require_current(connection, "outbox", APPLICATION)
    assert remark == f"schema 'app' is newer than this version ({last + 1:04d}_next), and still serves it"


@pytest.mark.parametrize("folder", ["migrations", "application"])
def test_a_migration_serves_only_versions_before_it(folder: str) -> None:
    assert all(m.serves is None or m.serves < m.version for m in migrations(folder))


@pytest.mark.parametrize(
    ("text", "serves"),
    [("-- serves: 12\nselect 1", 12), ("-- About it.\n-- serves: 7\n", 7), ("select 1", None), ("-- serves 12", None)],
)
def test_a_migration_says_in_its_header_which_versions_it_serves(text: str, serves: int | None) -> None:
    assert parsed(13, "x", text).serves == serves
