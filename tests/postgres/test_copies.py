"""A copy of the database delivers nothing until a person says so; the outbox in its own home is never taken for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from anyio import to_thread
from asyncpg import InvalidParameterValueError

from outbox.model.events import CopyAdopted, CopyFound
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.cli.test_cli import outbox
from tests.support.examining import examined, wrong
from tests.support.running import counts, enqueue, fetch, running
from tests.worker.test_failover import directory as directory  # noqa: PLC0414 - a fixture
from tests.worker.test_failover import primary as primary  # noqa: PLC0414 - a fixture
from tests.worker.test_failover import start_standby

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def copy(database: str, postgres: PostgresServer) -> AsyncIterator[str]:
    """A copy of a database with three messages, in which a worker has been and delivered another one."""
    async with running(database) as relay:
        await enqueue(database)
        await relay.wait_completed(1)
    await enqueue(database, 3)
    name = urlsplit(database).path.lstrip("/")
    await fetch(postgres.dsn(), f'create database "{name}_copy" template "{name}"')
    yield postgres.dsn(f"{name}_copy")
    await fetch(postgres.dsn(), f'drop database "{name}_copy" with (force)')


async def test_a_copy_claims_nothing_and_says_why_until_it_is_adopted(database: str, copy: str) -> None:
    async with running(copy, mode="poll", poll_interval_s=0.1) as relay:
        found = await relay.log.wait_for(CopyFound)
        assert "is a copy of test_" in found.detail
        assert "is a copy of" in relay.worker.state.known()["database"]
        assert "is a copy of" in wrong(await examined(copy))["home"].detail
        status = await outbox(copy, "status")
        assert "a copy of another database, see outbox adopt" in " ".join(status.out.split())
        await enqueue(copy)
        assert await counts(copy) == {"message": 4, "history": 1, "dead_letter": 0}
        assert relay.sink.received == []
        done = await outbox(copy, "adopt")
        assert (done.code, done.out) == (0, "adopted: workers claim here from now on\n")
        await relay.wait_completed(4)
        await relay.log.wait_for(CopyAdopted)
        assert relay.worker.state.known()["database"] == "ok"
    assert "home" not in wrong(await examined(copy))


async def test_the_original_goes_on(database: str, copy: str) -> None:
    async with running(copy, worker_name="of the copy"), running(database) as relay:
        await relay.wait_completed(3)
    assert not wrong(await examined(database))
    done = await outbox(database, "adopt")
    assert (done.code, done.out) == (0, "this database is no copy: nothing to adopt\n")


async def test_an_adopted_copy_is_in_doubt_about_what_the_original_delivered(copy: str) -> None:
    await outbox(copy, "adopt")
    [[message_id], *_] = await fetch(copy, "select message_id from outbox.message")
    done = await outbox(copy, "cancel", str(message_id))
    assert "it may have been delivered before" in done.out


async def test_a_persons_own_pause_outlives_the_adoption(copy: str) -> None:
    await fetch(copy, "select outbox.pause()")
    async with running(copy, mode="poll", poll_interval_s=0.1) as relay:
        await relay.log.wait_for(CopyFound)
        await outbox(copy, "adopt")
        await relay.log.wait_for(CopyAdopted)
    assert len(await fetch(copy, "select from outbox.pause")) == 1
    assert relay.sink.received == []


@pytest.mark.parametrize("paused_by", ["a person", "the worker"])
async def test_resume_refuses_a_copy_and_names_adopt(copy: str, paused_by: str) -> None:
    if paused_by == "a person":
        await fetch(copy, "select outbox.pause()")
    async with running(copy, mode="poll", poll_interval_s=0.1) as relay:
        await relay.log.wait_for(CopyFound)
        refused = await outbox(copy, "resume")
        assert refused.code == 1
        assert "is a copy of test_" in refused.fault
        assert "outbox adopt" in refused.fault
        with pytest.raises(InvalidParameterValueError, match="is a copy of"):
            await fetch(copy, "select outbox.resume()")
        await fetch(copy, "select outbox.pause(topic => 't'), outbox.resume(topic => 't')")
        await outbox(copy, "adopt")
        await relay.log.wait_for(CopyAdopted)
        assert (await outbox(copy, "resume")).code == (0 if paused_by == "a person" else 2)
        await relay.wait_completed(3)


async def test_a_copy_with_a_deleted_pause_is_paused_again_by_the_next_look(copy: str) -> None:
    async with running(copy, mode="poll", poll_interval_s=60) as relay:
        await relay.log.wait_for(CopyFound)
    await fetch(copy, "delete from outbox.pause")
    async with running(copy, mode="poll", poll_interval_s=0.1) as again:
        await again.log.wait_for(CopyFound)
        assert len(await fetch(copy, "select from outbox.pause")) == 1


async def test_a_worker_claims_nothing_after_its_database_was_exchanged_for_a_copy(
    database: str, copy: str, postgres: PostgresServer
) -> None:
    """As a nightly refresh does it: all connections are cut, and another database has the name."""
    name = urlsplit(database).path.lstrip("/")
    async with running(database, mode="poll", poll_interval_s=0.1) as relay:
        await relay.wait_completed(3)
        await fetch(postgres.dsn(), f'alter database "{name}" with allow_connections false')
        await fetch(postgres.dsn(), "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
        for statement in (
            f'alter database "{name}" rename to "{name}_old"',
            f'alter database "{name}_copy" rename to "{name}"',
        ):
            await fetch(postgres.dsn(), statement)
        try:
            await relay.log.wait_for(CopyFound, timeout_s=30)
            assert len(relay.sink.received) == 3
        finally:
            await relay.stop()
            await fetch(postgres.dsn(), f'alter database "{name}" rename to "{name}_copy"')
            await fetch(postgres.dsn(), f'alter database "{name}_old" with allow_connections true')
            await fetch(postgres.dsn(), f'alter database "{name}_old" rename to "{name}"')


async def test_another_server_with_the_same_database_number_is_a_copy(database: str) -> None:
    async with running(database):
        pass
    await fetch(database, "update outbox.home set system_identifier = system_identifier - 1")
    async with running(database) as relay:
        await relay.log.wait_for(CopyFound)


async def test_a_login_that_may_not_ask_for_the_server_compares_the_database(
    database: str, postgres: PostgresServer
) -> None:
    await fetch(database, "revoke execute on function pg_control_system() from public")
    await fetch(database, "create role plain_login login in role outbox_worker")
    plain = database.replace("postgres@", "plain_login@")
    try:
        await fetch(database, "alter function outbox.place() owner to plain_login")
        await fetch(database, "update outbox.home set system_identifier = null")
        async with running(plain) as relay:
            await enqueue(database)
            await relay.wait_completed(1)
    finally:
        await fetch(database, "alter function outbox.place() owner to postgres")
        await fetch(database, "drop role plain_login")


async def test_a_promoted_standby_is_no_copy(anyio_backend: object, primary: PostgresServer, directory: object) -> None:
    await migrate(primary.dsn())
    async with running(primary.dsn()) as relay:
        await enqueue(primary.dsn())
        await relay.wait_completed(1)
    await enqueue(primary.dsn())
    with await to_thread.run_sync(start_standby, primary, directory) as standby:
        await to_thread.run_sync(primary.kill)
        await fetch(standby.dsn(), "select pg_promote()")
        async with running(standby.dsn()) as relay:
            await relay.wait_completed(1)
            assert relay.log.of(CopyFound) == []


async def test_a_restart_and_another_name_make_no_copy(anyio_backend: object, primary: PostgresServer) -> None:
    await fetch(primary.dsn(), "create database app")
    await migrate(primary.dsn("app"))
    async with running(primary.dsn("app")):
        pass
    await to_thread.run_sync(primary.restart)
    await fetch(primary.dsn(), "alter database app rename to shop")
    await enqueue(primary.dsn("shop"))
    async with running(primary.dsn("shop")) as relay:
        await relay.wait_completed(1)
        assert relay.log.of(CopyFound) == []
