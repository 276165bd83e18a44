"""`outbox doctor` on a database: each thing broken by itself is found, graded, and cured by what is printed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from anyio import to_thread

from outbox.doctor import housekeeping, server
from outbox.doctor.queries import DoctorQueries
from outbox.doctor.schema import NEEDED, NEEDED_FUNCTIONS, judged_grants
from outbox.model.errors import ConfigurationError
from outbox.model.events import DatabaseLost, MaintenanceFailed
from outbox.model.finding import Finding
from outbox.model.message import Message
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from outbox.postgres.pool import open_pool
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.support.eventually import eventually
from tests.support.examining import examined, safe, untried, wrong
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.running import fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import connected
from tests.worker.test_failover import directory as directory  # noqa: PLC0414 - a fixture
from tests.worker.test_failover import start_standby

pytestmark = pytest.mark.timeout(120)
_numbers = count(1)


async def follow(dsn: str, cure: str | None) -> None:
    """Do what the cure says, a line after the other as a person would."""
    async with connected(dsn) as connection:
        for line in (cure or "").splitlines():
            for statement in line.partition("--")[0].split(";"):
                if statement.strip():
                    await connection.execute(statement)


async def only(dsn: str, what: str, **chosen: Any) -> Finding:
    """The one thing that is wrong, and nothing else is."""
    findings = await examined(dsn, **chosen)
    found = wrong(findings)
    assert set(found) == {what}, found
    assert safe(findings) == (found[what].grade != "fault")
    return found[what]


async def test_healthy_installation_has_no_finding_but_good_ones(database: str) -> None:
    findings = await examined(database)
    assert {finding.grade for finding in findings} == {"good"}, wrong(findings) | untried(findings)
    assert not [finding for finding in findings if finding.cure]


# The server


async def test_cure_of_a_read_only_server_is_for_the_place_of_the_setting(database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    await fetch(database, f'alter database "{name}" set default_transaction_read_only = on')
    found = await only(database, "takes writes")
    assert found.grade == "fault"
    await follow(database, found.cure)
    assert not wrong(await examined(database))


async def test_cure_of_a_read_only_role_is_for_the_role(database: str) -> None:
    async with new_login(database) as (name, dsn):
        await fetch(database, f"alter role {name} superuser")
        await fetch(database, f"alter role {name} set default_transaction_read_only = on")
        found = await only(dsn, "takes writes")
        assert "alter role" in str(found.cure)
        await follow(dsn, found.cure)
        assert not wrong(await examined(dsn))


async def test_old_server_is_refused(database: str) -> None:
    async with questions(database) as ask:
        facts = await ask.server_facts()
    assert facts["version_num"] >= 140_000
    by_what = {f.what: f for f in server.judged_server(facts | {"version_num": 130_014, "version": "13.14"}, 0.0, 0.0)}
    assert (by_what["server version"].grade, by_what["server version"].detail) == ("fault", "PostgreSQL 13.14")


async def test_an_encoding_other_than_utf8_is_a_fault(database: str) -> None:
    async with questions(database) as ask:
        facts = await ask.server_facts()
    by_what = {f.what: f for f in server.judged_server(facts | {"encoding": "SQL_ASCII"}, 0.0, 0.0)}
    assert by_what["encoding"].detail == "the database's encoding is SQL_ASCII, the outbox needs UTF8"
    assert "encoding 'UTF8' template template0" in str(by_what["encoding"].cure)


async def test_a_login_without_rights_has_one_fault_and_a_short_line(database: str) -> None:
    async with new_login(database) as (name, dsn):
        findings = await examined(dsn)
    assert [finding.what for finding in findings if finding.grade == "fault" and not finding.reason_untried] == [
        "grants"
    ]
    grants = next(finding for finding in findings if finding.what == "grants")
    assert grants.detail.startswith(f"{name} lacks usage on schema outbox, ")
    assert grants.detail.endswith(" more rights")
    assert len(grants.detail) < 250
    assert "this login lacks rights: see grants" in untried(findings)["locks"]


async def test_server_that_does_not_wait_for_its_disk_is_reported(database: str) -> None:
    """The tests' servers do not."""
    async with questions(database) as ask:
        facts = await ask.server_facts()
    by_what = {f.what: f for f in server.judged_server(facts, 0.0, 0.0)}
    found = by_what["durable writes"]
    assert (found.grade, found.detail.split(":")[0]) == ("warning", "fsync and full_page_writes off")
    by_what = {f.what: f for f in server.judged_server(facts | {"unsafe": []}, 0.0, 0.0)}
    assert by_what["durable writes"].grade == "good"


@pytest.mark.parametrize(("wrong_by_s", "where"), [(60.0, "behind"), (-60.0, "ahead of")])
async def test_clocks_that_differ_are_reported(
    database: str, monkeypatch: pytest.MonkeyPatch, wrong_by_s: float, where: str
) -> None:
    monkeypatch.setattr(server, "time", SimpleNamespace(time=lambda: time.time() + wrong_by_s))
    found = await only(database, "clock")
    assert (found.grade, f"s {where} this machine's" in found.detail) == ("warning", True)


@needs_pgbouncer
async def test_transaction_pooler_is_found_and_an_address_around_it_cures_it(
    database: str, postgres: PostgresServer
) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        findings = await examined(bouncer.led(database))
        found = wrong(findings)
        assert set(found) == {"pooler", "LISTEN"}
        assert safe(findings)
        assert "pooler in transaction mode" in found["LISTEN"].detail
        assert "OUTBOX_LISTEN_URL" in str(found["LISTEN"].cure)
        around = await only(bouncer.led(database), "pooler", listen_url=database)
        assert "statement_timeout = '9s'" in str(around.cure)
        name = urlsplit(database).path.lstrip("/")
        await fetch(database, f"alter database \"{name}\" set statement_timeout = '9s'")
        with pgbouncer(postgres, "transaction") as fresh:  # with sessions that have it
            assert not wrong(await examined(fresh.led(database), listen_url=database))


@needs_pgbouncer
async def test_session_pooler_hides_live_workers(database: str, postgres: PostgresServer) -> None:
    with pgbouncer(postgres, "session") as bouncer:
        findings = await examined(bouncer.led(database))
        assert set(wrong(findings)) == {"pooler"}
        [hidden, _unbounded] = [finding for finding in findings if finding.what == "pooler"]
        assert "a dead worker's messages wait" in hidden.detail


# The schema, and rights in it


@pytest.mark.parametrize(
    ("breaking", "detail", "cure"),
    [
        ("drop schema outbox cascade", "no schema 'outbox'", "outbox migrate"),
        ("drop table outbox.migration", "holds no outbox", "outbox migrate"),
        ("delete from outbox.migration where version = 9", "0009_life missing", "outbox migrate"),
        ("insert into outbox.migration values (9999, 'later', '')", "newer than this version", "upgrade"),
        ("update outbox.migration set checksum = '' where version = 1", "0001_tables was edited", "restore"),
    ],
)
async def test_wrong_schema_is_a_fault_and_keeps_the_rest_from_its_turn(
    database: str, breaking: str, detail: str, cure: str
) -> None:
    await fetch(database, breaking)
    found = await only(database, "schema version")
    assert found.grade == "fault"
    assert detail in found.detail
    assert cure in str(found.cure)
    because = untried(await examined(database))
    assert {"autovacuum", "oldest xmin", "dead tuples", "notifying trigger", "LISTEN", "mode"} <= set(because)


@asynccontextmanager
async def new_login(dsn: str) -> AsyncIterator[tuple[str, str]]:
    """A role that may do nothing, and how it comes into the database."""
    name = f"login_{next(_numbers)}"
    await fetch(dsn, f"create role {name} login")
    parts = urlsplit(dsn)
    try:
        yield name, urlunsplit(parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}"))
    finally:
        await fetch(dsn, f"drop owned by {name}")
        await fetch(dsn, f"drop role {name}")


@asynccontextmanager
async def questions(dsn: str) -> AsyncIterator[DoctorQueries]:
    async with open_pool(dsn, size=1, application_name="test", statement_timeout_s=30) as pool:
        yield DoctorQueries(pool, "outbox")


async def grant_needed(dsn: str, name: str) -> None:
    tables = (f"grant {privilege} on outbox.{table} to {name};" for table, privilege in NEEDED)
    functions = (f"grant execute on function outbox.{function} to {name};" for function in NEEDED_FUNCTIONS)
    async with connected(dsn) as connection:
        await connection.execute(f"grant usage on schema outbox to {name};" + "".join((*tables, *functions)))


async def has_roles(dsn: str) -> bool:
    """Whether the server has the role that the cures name."""
    return bool(await fetch(dsn, "select from pg_roles where rolname = 'outbox_worker'"))


async def test_missing_rights_of_a_user_are_named(database: str) -> None:
    async with new_login(database) as (name, dsn):
        findings = await examined(dsn)
        found = wrong(findings)["grants"]
        assert found.grade == "fault"
        assert "usage on schema outbox" in found.detail
        assert found.cure == f'grant outbox_worker to "{name}";'
        assert "schema version" in untried(findings)
        if await has_roles(database):
            await follow(database, found.cure)
            assert not wrong(await examined(dsn))


async def test_each_right_that_is_missing_is_found_alone(database: str) -> None:
    async with new_login(database) as (name, dsn):
        await grant_needed(database, name)
        async with questions(dsn) as ask:
            for table, privilege in NEEDED:
                await fetch(database, f"revoke {privilege} on outbox.{table} from {name}")
                assert (await ask.grant_facts(NEEDED, NEEDED_FUNCTIONS))["missing"] == [
                    f"{privilege} on outbox.{table}"
                ]
                await fetch(database, f"grant {privilege} on outbox.{table} to {name}")
        await fetch(database, f"revoke execute on function outbox.wake() from public, {name}")
        found = await only(dsn, "grants")
        assert (found.grade, found.detail) == ("fault", f"{name} lacks execute on outbox.wake")


async def test_rows_that_row_level_security_hides_are_a_fault(database: str) -> None:
    async with new_login(database) as (name, dsn):
        await grant_needed(database, name)
        await fetch(database, "alter table outbox.message enable row level security")
        found = next(f for f in await examined(dsn) if f.what == "grants" and f.grade == "fault")
        assert f"hides every row of message from {name}" in found.detail
        assert found.cure == f'grant outbox_worker to "{name}";'
        if await has_roles(database):
            await follow(database, found.cure)
            assert not wrong(await examined(dsn))


async def test_user_that_may_make_no_partitions_is_warned_of(database: str) -> None:
    async with new_login(database) as (name, dsn):
        await grant_needed(database, name)
        await fetch(database, "alter function outbox.create_history_partitions security invoker")
        found = await only(dsn, "grants")
        assert (found.grade, "may not make partitions" in found.detail) == ("warning", True)
        await fetch(database, "alter function outbox.create_history_partitions security definer")
        assert not wrong(await examined(dsn))


def judge(message: Message) -> Outcome:
    """Some are delivered, some fail once, some are rejected."""
    if message.topic == "fails" and message.attempts == 0:
        return Failed("Once", "the first time")
    return Rejected("Never", "as it was asked") if message.topic == "rejected" else Delivered("w", "r")


async def test_rights_that_the_doctor_checks_are_all_that_a_worker_needs(database: str) -> None:
    async with new_login(database) as (name, dsn):
        await grant_needed(database, name)
        await fetch(database, "select outbox.limit_topic('limited', 100)")
        async with running(dsn, FakeSink(judge)) as relay:
            for topic, key in (("fails", None), ("rejected", None), ("limited", None), ("a", "k"), ("b", "k")):
                await fetch(
                    database, "select outbox.enqueue($1, key => $2, dedup_key => $1, dedup_window => '1 h')", topic, key
                )
            await relay.wait_completed(4)
            await relay.wait_buried()
            refused = list(relay.log.of(DatabaseLost))
            duties = {event.duty for event in relay.log.of(MaintenanceFailed)}
        assert refused == []
        assert duties <= {"history"}  # partitions, of which the doctor warns


def test_column_rights_and_good_rights_are_no_findings() -> None:
    rights = {"user": "u", "usage": True, "missing": [], "functions": [], "hidden": [], "partitions": True}
    assert [finding.grade for finding in judged_grants(rights, "outbox")] == ["good"]


# Vacuum, and who holds it up


async def test_autovacuum_that_is_off_for_a_table_is_found(database: str) -> None:
    await fetch(database, "alter table outbox.message set (autovacuum_enabled = off)")
    found = await only(database, "autovacuum")
    assert (found.grade, found.cure) == ("warning", "alter table outbox.message reset (autovacuum_enabled);")
    await follow(database, found.cure)
    assert not wrong(await examined(database))


async def test_statistics_that_are_not_kept_are_found(database: str) -> None:
    name = urlsplit(database).path.lstrip("/")
    await fetch(database, f'alter database "{name}" set track_counts = off')
    assert "track_counts is off" in (await only(database, "autovacuum")).detail


async def test_transaction_that_stays_open_is_found_and_its_end_cures_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with questions(database) as ask:
        connection = await asyncpg.connect(database, server_settings={"application_name": "long report"})
        try:
            await connection.execute("begin isolation level repeatable read; select 1")
            facts = await ask.housekeeping_facts()
            [holder] = facts["holders"]
            assert (holder["name"], holder["application"]) == (str(connection.get_server_pid()), "long report")
            assert 0 <= holder["held_s"] < 60
            [young] = [f for f in housekeeping.judged_housekeeping(facts, "outbox") if f.what == "oldest xmin"]
            assert young.grade == "good"
            monkeypatch.setattr(housekeeping, "HELD_TOO_LONG_S", 0.0)
            found = await only(database, "oldest xmin")
            assert (
                f"process {connection.get_server_pid()} of long report, user postgres (idle in transaction)"
                in found.detail
            )
            await follow(database, found.cure)
            assert not wrong(await examined(database))
        finally:
            connection.terminate()


async def test_transaction_with_a_hidden_age_is_judged_by_transactions(database: str) -> None:
    async with new_login(database) as (name, dsn), connected(database) as connection:
        await grant_needed(database, name)
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("select 1")
            async with questions(dsn) as ask:
                [holder] = (await ask.housekeeping_facts())["holders"]
            assert holder["held_s"] is None
            found = housekeeping._held_by(holder | {"transactions": 200_000})
            assert found
            assert "grant pg_read_all_stats" in found.detail


async def test_many_dead_tuples_are_found_and_vacuum_cures_them(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_MANY_DEAD", 1000)
    async with connected(database) as connection:
        await connection.execute("alter table outbox.worker set (autovacuum_enabled = off)")
        await connection.execute(
            "insert into outbox.worker (name, version) select 'w', 'v' from generate_series(1, 2000)"
        )
        await connection.execute("delete from outbox.worker")

    async def look() -> dict[str, Finding]:
        return wrong(await examined(database))

    found = await eventually(look, lambda found: "dead tuples" in found)
    assert "2000 dead rows in outbox.worker, 0 live; last vacuum: never" in found["dead tuples"].detail
    await follow(database, found["dead tuples"].cure)
    await eventually(look, lambda found: "dead tuples" not in found)


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """A server of this test's own, where transactions may be prepared."""
    with PostgresServer.start(fsync=False, settings={"max_prepared_transactions": "3"}) as own:
        yield own


async def test_standby_prepared_transaction_and_abandoned_slot(
    anyio_backend: object, primary: PostgresServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that wants servers of its own, on one pair of them."""
    dsn = primary.dsn()
    await migrate(dsn)
    standby = await to_thread.run_sync(
        lambda: start_standby(
            primary,
            directory,
            *("-C", "-S", "standby_1"),
            hot_standby_feedback="on",
            wal_receiver_status_interval="1",
            max_prepared_transactions="3",
        )
    )
    with standby:

        async def of_standby() -> dict[str, Finding]:
            return wrong(await examined(standby.dsn()))

        found = await eventually(of_standby, lambda found: "schema version" not in found)
        assert (found["takes writes"].grade, found["takes writes"].detail) == ("fault", "this server is a standby")
        assert "DATABASE_URL" in str(found["takes writes"].cure)

        async def kept_back() -> list[Any]:
            return await fetch(dsn, "select from pg_replication_slots where xmin is not null")

        await eventually(kept_back, bool)
        lagging = await only(dsn, "standbys")
        assert (lagging.grade, lagging.detail.partition(":")[0]) == ("warning", "1 follows, none synchronous")
        await follow(dsn, lagging.cure)

        async def of_primary() -> dict[str, Finding]:
            return wrong(await examined(dsn))

        assert not await eventually(of_primary, lambda found: not found)
        await fetch(dsn, "alter system reset synchronous_standby_names")
        await fetch(dsn, "select pg_reload_conf()")
    abandoned = await only(dsn, "oldest xmin")
    assert "by the physical replication slot standby_1, which is not read" in abandoned.detail
    await follow(dsn, abandoned.cure)
    async with connected(dsn) as connection:
        await connection.execute("begin; create table t (); prepare transaction 'it''s open'")
    assert not wrong(await examined(dsn))
    monkeypatch.setattr(housekeeping, "HELD_TOO_LONG_S", 0.0)
    prepared = await only(dsn, "oldest xmin")
    assert 'by the prepared transaction "it\'s open" of postgres' in prepared.detail
    await follow(dsn, prepared.cure)
    await fetch(dsn, "alter system set autovacuum = off")
    await fetch(dsn, "select pg_reload_conf()")

    async def of_primary() -> dict[str, Finding]:
        return wrong(await examined(dsn))

    found = await eventually(of_primary, bool)
    assert set(found) == {"autovacuum"}
    await follow(dsn, found["autovacuum"].cure)
    assert await eventually(of_primary, lambda found: not found) == {}


# What wakes a worker


async def test_trigger_that_is_disabled_or_dropped_is_found_and_restored(database: str) -> None:
    for breaking in ("alter table outbox.message disable trigger wakeup", "drop trigger wakeup on outbox.message"):
        await fetch(database, breaking)
        found = await only(database, "notifying trigger")
        assert found.grade == "warning"
        await follow(database, found.cure)
        assert not wrong(await examined(database))


async def test_polling_only_is_a_warning_by_setting_and_by_switch(database: str) -> None:
    found = await only(database, "mode", mode="poll")
    assert (found.grade, found.cure) == ("warning", "OUTBOX_MODE=auto")
    await fetch(database, """select outbox.set_switch('mode', '"poll"')""")
    found = await only(database, "mode")
    assert (found.detail.startswith("poll, by `outbox mode`"), found.cure) == (True, "outbox mode default")
    assert "LISTEN" not in {finding.what for finding in await examined(database)}


async def test_listen_address_that_leads_nowhere_is_found(database: str) -> None:
    findings = await examined(database, listen_url="postgresql://postgres@127.0.0.1:1/x")
    assert "refused" in wrong(findings)["LISTEN"].detail
    assert "refused" in untried(findings)["pooler"]


# The sink, where it only has a probe


async def test_sink_that_takes_nothing_is_a_fault(database: str) -> None:
    sink = FakeSink()
    sink.available = False
    found = await only(database, "sink", factory=sink.factory)
    assert (found.grade, "FakeSinkDown" in found.detail) == ("fault", True)


async def test_sink_that_raises_or_cannot_be_opened_is_a_fault(database: str) -> None:
    class Broken(FakeSink):
        async def probe(self) -> None:
            raise ValueError("as it was asked")

    assert "raised ValueError: as it was asked" in (await only(database, "sink", factory=Broken().factory)).detail

    def closed(_context: object) -> Any:
        raise ConfigurationError("SINK_KEY is not set")

    assert (await only(database, "sink", factory=closed)).detail == "SINK_KEY is not set"
    assert untried(await examined(database, None)) == {"sink": "OUTBOX_SINK leads to none"}


async def test_what_cannot_be_examined_although_it_is_there_is_a_fault(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that breaks does not permit a start."""

    async def broken(_self: DoctorQueries) -> None:
        raise KeyError("as it was asked")

    monkeypatch.setattr(DoctorQueries, "register", broken)
    found = wrong(await examined(database))
    assert {what: finding.grade for what, finding in found.items()} == {"schema version": "fault", "grants": "fault"}
    monkeypatch.undo()
    monkeypatch.setattr(DoctorQueries, "housekeeping_facts", broken)
    assert set(untried(await examined(database))) == {"autovacuum", "oldest xmin", "dead tuples", "sequences"}
