"""Examines the way to PostgreSQL and the server at its end: each host, TLS, the login, and what answers there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from outbox.doctor.runner import MissingPrerequisite, Prerequisites
from outbox.model.errors import ConfigurationError
from outbox.model.finding import Check, Finding, quoted
from outbox.postgres.address.tls import is_local
from outbox.postgres.connect import Attempt, attempts, connected, is_pooled, place
from outbox.postgres.errors import translated_errors

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.postgres.address import ConnectionParameters

REACHABILITY = Check("reachability", ("warning", "fault"))
TLS = Check("TLS", ("warning", "fault"))
CREDENTIALS = Check("credentials", ("warning", "fault"))
WRITES = Check("takes writes", ("fault",))
VERSION = Check("server version", ("fault",))
ENCODING = Check("encoding", ("fault",))
CLOCK = Check("clock", ("warning",))
POOLER = Check("pooler", ("warning",))
WAY = (REACHABILITY, TLS, CREDENTIALS)
DISK = Check("durable writes", ("warning",))
STANDBYS = Check("standbys", ("warning",))
NOTIFICATIONS = Check("notification queue", ("warning",))
SERVER = (WRITES, VERSION, ENCODING, CLOCK, DISK, STANDBYS, NOTIFICATIONS)
CHECKS = (*WAY, *SERVER, POOLER)

_STAGES = {"reach": REACHABILITY, "tls": TLS, "enter": CREDENTIALS}
_OLDEST_VERSION = 14
_CLOCK_TOLERANCE_S = 2.0
_FILLING = 0.25
"""Of the queue of notifications. An empty one is usual; from the half on the outbox sends none."""
_AROUND = "OUTBOX_LISTEN_URL=postgresql://…  # leads to PostgreSQL itself; Supabase: port 5432 instead of 6543"
_PRIMARY = (
    "postgresql://user@host-a,host-b/database  # in {}: the primary, or all hosts: the one that takes writes is used"
)
_READ_ONLY_BY = {
    "database": "alter database {database} reset default_transaction_read_only;",
    "user": "alter role {user} reset default_transaction_read_only;",
    "database user": "alter role {user} in database {database} reset default_transaction_read_only;",
}
"""What takes the setting back, by what pg_settings calls its source."""
_READ_ONLY_BY_FILE = "alter system reset default_transaction_read_only; select pg_reload_conf();"
_READ_ONLY_BY_US = "leave default_transaction_read_only out of PGOPTIONS, and of options in the connection string"
_FOR_ONCE = "set default_transaction_read_only = off;"


async def examine_way(settings: Settings, prerequisites: Prerequisites) -> Iterator[Finding]:
    """Try every host of the database. Raises MissingPrerequisite where the settings say none."""
    try:
        server = settings.dsn.resolve()
        tried = await attempts(settings.dsn, application_name="outbox doctor")
    except ConfigurationError as error:
        raise MissingPrerequisite("the settings do not say how to connect") from error
    prerequisites.way = any(attempt.refusal is None for attempt in tried)
    return judged_way(tried, server)


def judged_way(tried: Sequence[Attempt], server: ConnectionParameters) -> Iterator[Finding]:
    """What the attempts show, stage by stage. While one host lets us in, the others are no faults."""
    let_in = any(attempt.refusal is None for attempt in tried)
    under_way = list(tried)
    because = ""
    for attempt in tried:
        if attempt.refusal and attempt.refusal.stage == "write" and not let_in:
            yield WRITES.fault(f"{attempt.host}: {attempt.refusal.cause}", _PRIMARY.format(server.named("host")))
    for stage, check in _STAGES.items():
        stopped = [attempt for attempt in under_way if attempt.refusal and attempt.refusal.stage == stage]
        for attempt in stopped:
            assert attempt.refusal
            because = f"{check.what} is at fault"
            grade = check.warning if let_in else check.fault
            cure = attempt.refusal.cure or f"look into the server's log, and at {server.named('host')}"
            yield grade(f"{attempt.host}: {attempt.refusal.cause}", cure)
        under_way = [attempt for attempt in under_way if attempt not in stopped]
        if under_way:
            yield from _passed(check, under_way, server)
        elif not stopped:
            yield check.untried(because)


def _passed(check: Check, attempts: list[Attempt], server: ConnectionParameters) -> Iterator[Finding]:
    hosts = [attempt.host for attempt in attempts]
    named = ", ".join(map(str, hosts))
    if check is CREDENTIALS:
        yield check.good(f'user "{server.user}" comes into database "{server.database}"')
    elif check is REACHABILITY:
        yield check.good(f"{named} answers")
    else:
        for host in hosts:
            mode = server.tls.mode(host.name)
            doubt = server.tls.doubt(host.name)
            if doubt:
                detail, _, cure = doubt.partition("; ")
                yield check.warning(detail, cure)
            else:
                open_way = mode.value == "disable" and is_local(host.name)
                yield check.good(f"{host}: sslmode={mode.value} ({mode.origin}){', this machine' * open_way}")


async def examine_server(prerequisites: Prerequisites) -> list[Finding]:
    """Ask the server about itself. Raises OutboxError."""
    questions = prerequisites.questions()
    await questions.server_facts()  # the first of its kind takes longer, and the clocks are compared by the second
    began_s = time.time()
    facts = await questions.server_facts()
    ended_s = time.time()
    ahead_s = facts["now_s"] - (began_s + ended_s) / 2
    return list(judged_server(facts, ahead_s, (ended_s - began_s) / 2))


def judged_server(facts: dict[str, Any], ahead_s: float, uncertain_s: float) -> Iterator[Finding]:
    """Whether the server can be worked with. Its clock was found to be ahead of ours by so much."""
    if facts["standby"]:
        yield WRITES.fault("this server is a standby", _PRIMARY.format("DATABASE_URL"))
    elif facts["read_only"]:
        yield WRITES.fault("default_transaction_read_only is on", _writing(facts))
    else:
        yield WRITES.good("this server is a primary")
    if facts["version_num"] < _OLDEST_VERSION * 10_000:
        yield VERSION.fault(f"PostgreSQL {facts['version']}", f"upgrade it to PostgreSQL {_OLDEST_VERSION} or later")
    else:
        yield VERSION.good(f"PostgreSQL {facts['version']}")
    if facts["encoding"] == "UTF8":
        yield ENCODING.good("UTF8")
    else:
        yield ENCODING.fault(
            f"the database's encoding is {facts['encoding']}, the outbox needs UTF8",
            f"create database {quoted(facts['database'] + '_utf8')} encoding 'UTF8' template template0;"
            "  -- and move the data there",
        )
    if abs(ahead_s) - uncertain_s > _CLOCK_TOLERANCE_S:
        where = "ahead of" if ahead_s > 0 else "behind"
        yield CLOCK.warning(
            f"the server's is {abs(ahead_s):.1f} s {where} this machine's: times in logs and those that applications "
            "compute do not fit the outbox's",
            "timedatectl set-ntp true  # on the machine that is wrong",
        )
    else:
        yield CLOCK.good(f"the server's and this machine's differ by {abs(ahead_s):.1f} s")
    yield from _judged_durability(facts)
    yield _judged_notifications(facts)


def _judged_durability(facts: dict[str, Any]) -> Iterator[Finding]:
    """Whether a crash or a failover can take back what was committed, so that a workflow runs without its message."""
    if facts["unsafe"]:
        yield DISK.warning(
            f"{' and '.join(facts['unsafe'])} off: after a crash of its machine the database may have lost what was "
            "committed, or be damaged",
            "\n".join(f"alter system reset {name};" for name in facts["unsafe"]) + "\nselect pg_reload_conf();",
        )
    else:
        yield DISK.good("fsync and full_page_writes are on")
    standbys, names = facts["standbys"], facts["synchronous_standbys"]
    if standbys and not names.strip():
        yield STANDBYS.warning(
            f"{standbys} follow{'s' if standbys == 1 else ''}, none synchronous: after a failover a workflow may run "
            "although its transaction is lost",
            "alter system set synchronous_standby_names = 'any 1 (*)'; select pg_reload_conf();"
            "  -- every durable commit then waits for one of them",
        )
    else:
        yield STANDBYS.good("commits wait for a synchronous standby" if standbys else "none follows this server")


def _judged_notifications(facts: dict[str, Any]) -> Finding:
    """Whether the server's queue of notifications is emptied. When it is full, each commit that notifies fails."""
    usage, deaf = facts["notifications"], facts["deaf"]
    if usage < _FILLING:
        return NOTIFICATIONS.good(f"{usage:.0%} full")
    what = f"{usage:.0%} full: from 50 % on the outbox sends no notification, at 100 % commits of other programs fail"
    if deaf is None:
        return NOTIFICATIONS.warning(what, "select pid, state, xact_start from pg_stat_activity order by xact_start;")
    who = f"{deaf['application'] or 'a program without a name'} in database {deaf['database']}"
    return NOTIFICATIONS.warning(
        f"{what}; process {deaf['pid']} of {who} may not read it", f"select pg_terminate_backend({deaf['pid']});"
    )


def _writing(facts: dict[str, Any]) -> str:
    """The cure for a server that is set to take no writes, by the place of that setting."""
    if facts["read_only_by"] == "client":
        return _READ_ONLY_BY_US
    statement = _READ_ONLY_BY.get(facts["read_only_by"], _READ_ONLY_BY_FILE)
    return f"{_FOR_ONCE}\n{statement.format(user=quoted(facts['user']), database=quoted(facts['database']))}"


async def examine_pooler(settings: Settings, prerequisites: Prerequisites) -> list[Finding]:
    """Look for a pooler between the worker and PostgreSQL. Raises OutboxError."""
    async with AsyncExitStack() as stack:
        with translated_errors("connect"):
            own = await stack.enter_async_context(prerequisites.connections().acquire())
            pooled = listening = await is_pooled(own)
        if settings.listen_dsn is not settings.dsn:
            other = await stack.enter_async_context(connected(settings.listen_dsn, application_name="outbox doctor"))
            with translated_errors("connect"):
                listening = await is_pooled(other)
    found = []
    if listening:
        found.append(
            POOLER.warning(
                f"there is a pooler at {place(settings.listen_dsn)}: a dead worker's messages wait for the end of its "
                "lease, and in transaction mode notifications do not arrive",
                _AROUND,
            )
        )
    if pooled and (facts := await prerequisites.questions().server_facts())["statement_timeout"] == "0":
        found.append(
            POOLER.warning(
                "behind a pooler the worker cannot bound its statements in the server: if the answer to a claim is "
                "lost, the claim leases messages for no worker",
                f"alter role {quoted(facts['user'])} set statement_timeout = '9s';",
            )
        )
    led_around = f"there is one at {place(settings.dsn)}, and OUTBOX_LISTEN_URL leads around it"
    return found or [POOLER.good(led_around if pooled else "none: PostgreSQL itself answers")]
