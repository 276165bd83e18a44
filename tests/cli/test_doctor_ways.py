"""`outbox doctor` on ways that lead nowhere: the stage at which each ends is at fault, and what comes after is not tried."""

from __future__ import annotations

import pytest

from outbox.doctor import CHECKS, housekeeping, schema
from outbox.doctor import server as of_server
from outbox.store.migrations import migrate
from tests.cli.test_connecting import FAULTS, Ground, set_all
from tests.cli.test_connecting import environment as environment  # noqa: PLC0414 - a fixture, as the others
from tests.cli.test_connecting import ground as ground  # noqa: PLC0414
from tests.cli.test_connecting import prepared as prepared  # noqa: PLC0414
from tests.cli.test_connecting import silence as silence  # noqa: PLC0414
from tests.support.examining import examined, safe, untried, wrong
from tests.support.running import fetch
from tests.support.secured import PASSWORD, needs_tls

pytestmark = [needs_tls, pytest.mark.timeout(120)]
STAGES = {
    "wrong authority": "TLS",
    "authority unknown to the machine": "TLS",
    "wrong host name": "TLS",
    "no TLS there": "TLS",
    "TLS left out where it is wanted": "credentials",
    "wrong password": "credentials",
    "wrong password in a file": "credentials",
    "no password": "credentials",
    "no client certificate": "credentials",
    "another user's certificate": "credentials",
    "missing database": "credentials",
    "missing role": "credentials",
    "unknown parameter of the session": "credentials",
    "no entry for the user": "credentials",
    "port that refuses": "reachability",
    "unknown host": "reachability",
    "no socket": "reachability",
    "no host takes writes": "takes writes",
    "every host of several": "reachability",
}
ORDER = ["reachability", "TLS", "credentials"]
BEHIND = {check.what for check in (*of_server.SERVER, of_server.POOLER, *schema.CHECKS, *housekeeping.CHECKS)}


@pytest.mark.parametrize("fault", FAULTS)
async def test_stage_at_which_a_way_ends_is_the_fault(
    fault: str, prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    variables, _, words = FAULTS[fault]
    set_all(environment, variables(prepared))
    findings = await examined(None)
    faults = [found for found in findings if found.grade == "fault" and found.reason_untried is None]
    assert {finding.what for finding in faults} == {STAGES[fault]}
    assert not safe(findings)
    reported = "; ".join(f"PostgreSQL at {finding.detail}: {finding.cure}" for finding in faults)
    assert [word for word in words if word not in reported] == []
    assert BEHIND - {STAGES[fault]} <= set(untried(findings))
    if STAGES[fault] in ORDER:
        passed = ORDER[: ORDER.index(STAGES[fault])]
        assert "fault" not in {finding.grade for finding in findings if finding.what in passed}
    for secret in ("hunter2", PASSWORD):
        assert all(secret not in f"{finding.detail} {finding.cure}" for finding in findings)


async def test_black_hole_is_reported_as_one(silence: int, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://app@127.0.0.1:{silence}/app?connect_timeout=1")
    findings = await examined(None)
    assert "no answer within 1 s" in wrong(findings)["reachability"].detail
    assert "firewall" in str(wrong(findings)["reachability"].cure)


async def test_certificate_that_is_not_verified_is_a_warning(prepared: Ground, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", prepared.url(sslmode="require"))
    found = wrong(await examined(None))
    assert found["TLS"].grade == "warning"
    assert "the server is not verified" in found["TLS"].detail
    assert "verify-full" in str(found["TLS"].cure)
    assert "settings" not in found


async def test_one_host_of_several_that_is_away_is_no_fault(prepared: Ground, environment: pytest.MonkeyPatch) -> None:
    hosts = f"127.0.0.1:1,127.0.0.1:{prepared.port}"
    variables = {"DATABASE_URL": f"postgresql://app@{hosts}/app", "DB_PASSWORD": PASSWORD}
    set_all(environment, variables)
    found = wrong(await examined(None))
    assert found["reachability"].grade == "warning"
    assert found["reachability"].detail.startswith("127.0.0.1:1: refused")
    assert {"TLS", "credentials"}.isdisjoint(found)


async def test_owner_that_is_no_superuser_on_an_older_server_finds_all_good_over_tls(
    prepared: Ground, environment: pytest.MonkeyPatch
) -> None:
    await fetch(prepared.server.dsn(), "create database healthy owner app")
    try:
        set_all(environment, prepared.trusted())
        await migrate(prepared.url("localhost", database="healthy", sslmode="disable"))
        environment.setenv("DATABASE_URL", prepared.url(database="healthy"))
        findings = await examined(None)
        assert {finding.grade for finding in findings} == {"good"}, wrong(findings) | untried(findings)
        [tls] = [finding for finding in findings if finding.what == "TLS"]
        assert "sslmode=verify-full" in tls.detail
    finally:
        await fetch(prepared.server.dsn(), "drop database healthy with (force)")


async def test_nothing_that_says_where_is_a_fault_of_the_settings(environment: pytest.MonkeyPatch) -> None:
    findings = await examined(None)
    assert set(wrong(findings)) == {"settings"}
    assert {check.what for check in CHECKS} > set(untried(findings)) > BEHIND
