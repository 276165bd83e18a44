"""`outbox doctor`: each thing broken by itself is found, and its printed cure mends it."""

from __future__ import annotations

import pytest

from outbox.finding import Finding
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
async def test_each_fault_is_found_alone_and_its_cure_mends_it(
    server: RealtimeServer, supabase: str, via: str, breaking: str, what: str
) -> None:
    await run(supabase, HEALTHY)
    await fetch(
        supabase, "create or replace function realtime.topic() returns text language sql as $$select 'outbox'$$"
    )
    await fetch(supabase, breaking)
    found = wrong(await examined(supabase, url=server.url, realtime_via=via))
    assert set(found) == {what}
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


async def test_refused_join_and_unreachable_server_are_told_with_their_reason(
    server: RealtimeServer, supabase: str
) -> None:
    await run(supabase, HEALTHY)
    server.refuse_join = "TenantNotFound: nobody of this name"
    assert "TenantNotFound" in wrong(await examined(supabase, url=server.url))["Realtime"].detail
    assert "cannot reach" in wrong(await examined(supabase, url="http://127.0.0.1:1"))["Realtime"].detail


async def test_database_that_is_not_supabases_is_told(database: str) -> None:
    found = wrong(await examined(database, url="http://127.0.0.1:1", role="nobody-of-this-name"))
    assert {"wal_level", "publication", "role", "Realtime"} == set(found)
    found = wrong(await examined(database, url="http://127.0.0.1:1", realtime_via="broadcast", mode="realtime"))
    assert {"realtime.send", "broadcasting trigger", "broadcast policy", "Realtime"} == set(found)


async def test_token_that_cannot_be_read_is_told_and_the_subscription_not_tried(
    server: RealtimeServer, supabase: str
) -> None:
    await run(supabase, HEALTHY)
    findings = await examined(supabase, url=server.url, realtime_token_command="false")
    assert set(wrong(findings)) == {"Realtime token"}
    assert untried(findings) == {"Realtime": "there is no token"}
