"""`outbox doctor`: each thing broken by itself is found, and its printed cure repairs it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from outbox.model.finding import Finding
from tests.support import examining
from tests.support.examining import untried, wrong
from tests.support.realtime_server import RealtimeServer, jwt
from tests.support.running import fetch

pytestmark = pytest.mark.timeout(120)


async def examined(dsn: str, *, url: str | None = None, role: str = "authenticated", **chosen: str) -> list[Finding]:
    """What the doctor finds."""
    if url is not None:
        chosen |= {"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": jwt(role)}
    return await examining.examined(dsn, **chosen)


HEALTHY = """
grant usage on schema outbox to authenticated;
grant select on outbox.message to authenticated;
alter table outbox.message enable row level security;
create policy wakeup on outbox.message for select to authenticated using (true);
select outbox.enable_broadcast();
alter table realtime.messages enable row level security;
create policy outbox_wakeup on realtime.messages for select to authenticated using (true);
"""


async def run(dsn: str, script: str) -> None:
    for statement in script.strip().split(";"):
        if statement.strip():
            await fetch(dsn, statement)


@pytest.mark.parametrize("via", ["postgres_changes", "broadcast"])
async def test_everything_well(server: RealtimeServer, supabase: str, via: str) -> None:
    await run(supabase, HEALTHY)
    findings = await examined(supabase, url=server.url, realtime_via=via)
    assert not wrong(findings)
    assert {"LISTEN", "Realtime", "notifying trigger"} <= {finding.what for finding in findings}


@pytest.mark.parametrize(
    ("via", "breaking", "what"),
    [
        ("postgres_changes", "alter table outbox.message disable trigger wakeup", "notifying trigger"),
        ("postgres_changes", "alter publication supabase_realtime drop table outbox.message", "publication"),
        ("postgres_changes", "alter publication supabase_realtime set (publish = 'update')", "published operations"),
        ("postgres_changes", "revoke usage on schema outbox from authenticated", "schema grant"),
        ("postgres_changes", "revoke select on outbox.message from authenticated", "table grant"),
        ("postgres_changes", "drop policy wakeup on outbox.message", "row-level security"),
        ("broadcast", "select outbox.enable_broadcast(false)", "broadcasting trigger"),
        ("broadcast", "drop policy outbox_wakeup on realtime.messages", "broadcast policy"),
    ],
)
async def test_each_fault_is_found_alone_and_its_cure_repairs_it(
    server: RealtimeServer, supabase: str, via: str, breaking: str, what: str
) -> None:
    await run(supabase, HEALTHY)
    await fetch(supabase, breaking)
    found = wrong(await examined(supabase, url=server.url, realtime_via=via))
    assert set(found) == {what} | ({"Realtime"} if what == "broadcast policy" else set())
    assert found[what].cure
    await run(supabase, str(found[what].cure))
    assert not wrong(await examined(supabase, url=server.url, realtime_via=via))


async def test_publication_that_is_not_there_is_created_by_the_cure(server: RealtimeServer, supabase: str) -> None:
    await run(supabase, HEALTHY)
    await fetch(supabase, "drop publication supabase_realtime")
    found = wrong(await examined(supabase, url=server.url))
    await run(supabase, str(found["publication"].cure))
    assert "publication" not in wrong(await examined(supabase, url=server.url))


async def test_primary_key_that_is_missing_is_found(server: RealtimeServer, supabase: str) -> None:
    await run(supabase, HEALTHY)
    [row] = await fetch(
        supabase, "select conname from pg_constraint where conrelid = 'outbox.message'::regclass and contype = 'p'"
    )
    await fetch(supabase, f"alter table outbox.message drop constraint {row['conname']} cascade")
    assert "primary key" in wrong(await examined(supabase, url=server.url))


async def test_refused_join_and_unreachable_server_are_reported_with_their_reason(
    server: RealtimeServer, supabase: str
) -> None:
    await run(supabase, HEALTHY)
    server.refuse_join = "TenantNotFound: no tenant of this name"
    assert "TenantNotFound" in wrong(await examined(supabase, url=server.url))["Realtime"].detail
    assert "cannot reach" in wrong(await examined(supabase, url="http://127.0.0.1:1"))["Realtime"].detail


async def test_database_that_is_not_supabases_is_reported(database: str) -> None:
    found = wrong(await examined(database, url="http://127.0.0.1:1", role="role-of-no-one"))
    assert {"wal_level", "publication", "role", "Realtime"} == set(found)
    found = wrong(await examined(database, url="http://127.0.0.1:1", realtime_via="broadcast", mode="realtime"))
    assert {"realtime.send", "broadcasting trigger", "broadcast policy", "Realtime"} == set(found)


async def test_token_that_cannot_be_read_is_reported_and_the_subscription_not_tried(
    server: RealtimeServer, supabase: str
) -> None:
    await run(supabase, HEALTHY)
    findings = await examined(supabase, url=server.url, realtime_token_command="false")
    assert set(wrong(findings)) == {"Realtime token"}
    assert untried(findings) == {"Realtime": "there is no token"}


@pytest.fixture
async def owned(supabase: str) -> AsyncIterator[str]:
    """The outbox's schema belongs to a role that row-level security binds."""
    await fetch(supabase, "create role bound_owner")
    await run(supabase, HEALTHY)
    for [command] in await fetch(
        supabase,
        """select format('alter function %s owner to bound_owner', p.oid::regprocedure) from pg_proc p
           where p.pronamespace = 'outbox'::regnamespace
           union all select 'alter table outbox.message owner to bound_owner'
           union all select 'grant usage, create on schema outbox to bound_owner'""",
    ):
        await fetch(supabase, command)
    yield supabase
    await fetch(supabase, "reassign owned by bound_owner to postgres")
    await fetch(supabase, "drop owned by bound_owner")
    await fetch(supabase, "drop role bound_owner")


async def broadcasts(dsn: str) -> int:
    [row] = await fetch(dsn, "select count(*) from realtime.messages")
    return int(row[0])


async def test_row_level_security_that_swallows_every_broadcast_is_found_and_its_cure_repairs_it(
    server: RealtimeServer, owned: str
) -> None:
    await fetch(owned, "select outbox.enqueue('lost')")
    assert await broadcasts(owned) == 0
    found = wrong(await examined(owned, url=server.url, realtime_via="broadcast"))
    assert set(found) == {"broadcast"}
    assert "row-level security" in found["broadcast"].detail
    await run(owned, str(found["broadcast"].cure))
    assert not wrong(await examined(owned, url=server.url, realtime_via="broadcast"))
    assert await broadcasts(owned) == 0, "what the doctor tries, it rolls back"
    await fetch(owned, "select outbox.enqueue('heard')")
    assert await broadcasts(owned) == 1


async def test_partition_that_is_missing_for_today_is_found(server: RealtimeServer, supabase: str) -> None:
    await run(supabase, HEALTHY)
    await fetch(supabase, "drop table realtime.messages_now")
    found = wrong(await examined(supabase, url=server.url, realtime_via="broadcast"))
    assert "no partition" in found["broadcast"].detail
    assert "start a worker" in str(found["broadcast"].cure)


async def test_private_only_project_is_found_and_the_setting_is_the_cure(server: RealtimeServer, supabase: str) -> None:
    await run(supabase, HEALTHY)
    server.private_only = True
    found = wrong(await examined(supabase, url=server.url))
    assert set(found) == {"Realtime"}
    assert found["Realtime"].cure == "set OUTBOX_REALTIME_PRIVATE=true"
    assert not wrong(await examined(supabase, url=server.url, realtime_private="true"))
    await fetch(supabase, "drop policy outbox_wakeup on realtime.messages")
    found = wrong(await examined(supabase, url=server.url, realtime_private="true"))
    assert set(found) == {"broadcast policy", "Realtime"}
    assert "Unauthorized" in found["Realtime"].detail
