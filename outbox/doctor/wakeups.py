"""Examines what wakes a worker, with the code that a worker runs.

Each finding was looked up or tried just now, and is never a guess from a setting. A fault here costs time and no
message, because the worker polls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.doctor.runner import MissingPrerequisite, Prerequisites, section
from outbox.loops.backoff import Backoff
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.model.events import Event, SourceLost, SourceReady
from outbox.model.finding import Check, Finding, Grade, quoted
from outbox.store.messages import Store
from outbox.store.rules import Rules
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.listen import ListenSource
from outbox.wakeup.phoenix import claim
from outbox.wakeup.realtime import RealtimeSource
from outbox.wakeup.selection import MODES, SWITCH

if TYPE_CHECKING:
    from outbox.config.settings import Settings
    from outbox.doctor.queries import Facts
    from outbox.model.events import Emit
    from outbox.wakeup.realtime import RealtimeSettings
    from outbox.wakeup.selection import Mode, Source
    from outbox.wakeup.token import Token

_TRY_FOR_S = 25.0
"""A refused join is reported after five seconds, an unanswered one after fifteen."""

_HURTS: tuple[Grade, ...] = ("warning",)
MODE = Check("mode", _HURTS)
TRIGGER = Check("notifying trigger", _HURTS)
LISTEN = Check("LISTEN", _HURTS)
TOKEN = Check("Realtime token", _HURTS)
WAL_LEVEL = Check("wal_level", _HURTS)
PUBLICATION = Check("publication", _HURTS)
OPERATIONS = Check("published operations", _HURTS)
KEY = Check("primary key", _HURTS)
ROLE = Check("role", _HURTS)
SCHEMA_GRANT = Check("schema grant", _HURTS)
TABLE_GRANT = Check("table grant", _HURTS)
ROW_SECURITY = Check("row-level security", _HURTS)
SEND = Check("realtime.send", _HURTS)
BROADCASTER = Check("broadcasting trigger", _HURTS)
POLICY = Check("broadcast policy", _HURTS)
REALTIME = Check("Realtime", _HURTS)
CHANGES = (WAL_LEVEL, PUBLICATION, OPERATIONS, KEY, ROLE, SCHEMA_GRANT, TABLE_GRANT, ROW_SECURITY)
SENDING = Check("broadcast", _HURTS)
BROADCAST = (SEND, BROADCASTER, POLICY)
ALWAYS = (MODE, TRIGGER, LISTEN)
CHECKS = (MODE, TRIGGER, LISTEN, TOKEN, *CHANGES, *BROADCAST, SENDING, REALTIME)
_NO_CURE = "see the reason; until then the worker polls"


async def examine_wakeups(settings: Settings, prerequisites: Prerequisites) -> list[Finding]:
    """Everything that the mode may use."""
    switch = await _switched(prerequisites)
    mode = switch or settings.mode
    found = await section((MODE,), lambda: _examine_mode(settings, prerequisites))
    if mode in ("auto", "listen"):
        found += await section((TRIGGER,), lambda: _looked_up(prerequisites, "service_role", _listen_facts))
        found += await section(
            (LISTEN,), lambda: _try(LISTEN, partial(_listen, settings, prerequisites.statements(Store)))
        )
    configured = settings.realtime()
    if configured is not None and mode in ("auto", "realtime"):
        found += await _examine_realtime(*configured, prerequisites)
    return found


async def _switched(prerequisites: Prerequisites) -> Mode | None:
    """The mode that all workers were switched to; None also if it is not known."""
    try:
        switch = (await prerequisites.statements(Rules).control())[0].get(SWITCH)
    except OutboxError:
        return None
    return switch if switch in MODES else None


async def _examine_mode(settings: Settings, prerequisites: Prerequisites) -> list[Finding]:
    prerequisites.outbox()  # a mode that may be overruled is not known
    switch = await _switched(prerequisites)
    mode, by = (switch, "`outbox mode`") if switch else (settings.mode, "OUTBOX_MODE")
    if mode != "poll":
        return [MODE.good(f"{mode}, by {by}")]
    return [
        MODE.warning(
            f"poll, by {by}: nothing wakes the worker, messages wait for up to {settings.fallback_interval_s:g} s",
            "outbox mode default" if switch else "OUTBOX_MODE=auto",
        )
    ]


async def _examine_realtime(chosen: RealtimeSettings, token: Token, prerequisites: Prerequisites) -> list[Finding]:
    role, of_token = await _role(token)
    checks: tuple[Check, ...] = CHANGES
    judge = _changes_facts
    if chosen.via == "broadcast":
        checks, judge = BROADCAST, _broadcast_facts
    elif chosen.private:
        checks, judge = (*CHANGES, POLICY), _private_changes_facts

    async def subscribe() -> list[Finding]:
        if of_token.grade != "good":
            raise MissingPrerequisite("there is no token")
        return await _try(REALTIME, partial(RealtimeSource, chosen, token))

    return [
        of_token,
        *await section(checks, lambda: _looked_up(prerequisites, role, judge)),
        *(await section((SENDING,), lambda: _sent(prerequisites)) if chosen.via == "broadcast" else ()),
        *await section((REALTIME,), subscribe),
    ]


async def _role(token: Token) -> tuple[str, Finding]:
    """The role that Realtime's token names, and what is to be said of the token."""
    try:
        role = str(claim(await token.read(), "role") or "service_role")
    except ConfigurationError as error:
        return "service_role", TOKEN.warning(str(error), "outbox config  # which of the settings gives it")
    return role, TOKEN.good(f"it can be read, and is role {role}'s")


async def _looked_up(
    prerequisites: Prerequisites, role: str, judge: Callable[[Facts, str, str], Iterator[Finding]]
) -> Iterator[Finding]:
    return judge(await prerequisites.outbox().wakeup_facts(role), prerequisites.schema, role)


def _listen(settings: Settings, store: Store, wakeup: Wakeup, emit: Emit) -> Source:
    return ListenSource(
        settings.listen_dsn,
        settings.schema_name,
        store,
        wakeup,
        emit,
        on_control=lambda: None,
        reconnect=Backoff(1.0, 5.0),
    )


async def _try(check: Check, make: Callable[[Wakeup, Emit], Source]) -> list[Finding]:
    """Run a source until it is ready or has failed once."""
    seen: list[Event] = []
    answered = anyio.Event()

    def hear(event: Event) -> None:
        seen.append(event)
        answered.set()

    began_s = monotonic()
    async with anyio.create_task_group() as tasks:
        source = make(Wakeup(hear), hear)
        tasks.start_soon(source.run)
        with anyio.move_on_after(_TRY_FOR_S):
            await answered.wait()
        tasks.cancel_scope.cancel()
    match seen[:1]:
        case [SourceReady()]:
            return [check.good(f"subscribed, and a probe arrived, in {monotonic() - began_s:.2f} s")]
        case [SourceLost(error=error)]:
            detail, _, cure = error.partition(". Set ")
            return [check.warning(detail, f"set {cure}" if cure else _NO_CURE)]
        case _:
            return [check.warning(f"no answer within {_TRY_FOR_S:g} s", "is the address right?")]


def _listen_facts(facts: Facts, schema: str, _role: str) -> Iterator[Finding]:
    enabled = facts["trigger_enabled"]
    if enabled:
        yield TRIGGER.good(f"enabled on {schema}.message")
    elif enabled is None:
        made = f"create trigger wakeup after insert on {schema}.message for each statement execute function"
        yield TRIGGER.warning(f"none on {schema}.message: no enqueue notifies", f"{made} {schema}.ring();")
    else:
        cure = f"alter table {schema}.message enable trigger wakeup;"
        yield TRIGGER.warning(f"disabled on {schema}.message: no enqueue notifies", cure)


def _changes_facts(facts: Facts, schema: str, role: str) -> Iterator[Finding]:
    """What silences `postgres_changes`."""
    table = f"{schema}.message"
    if facts["wal_level"] == "logical":
        yield WAL_LEVEL.good("logical")
    else:
        cure = "alter system set wal_level = logical;  -- and restart PostgreSQL"
        yield WAL_LEVEL.warning(f"{facts['wal_level']}, which does not record changes for Realtime", cure)
    if facts["published"]:
        yield PUBLICATION.good(f"supabase_realtime has {table}")
    else:
        create = "" if facts["publication"] else "create publication supabase_realtime; "
        cure = f"{create}alter publication supabase_realtime add table {table};"
        yield PUBLICATION.warning(f"there is no supabase_realtime with {table}", cure)
    if facts["publishes_inserts"]:
        yield OPERATIONS.good("inserts, among others")
    elif facts["publication"]:
        cure = "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');"
        yield OPERATIONS.warning("supabase_realtime leaves inserts out", cure)
    if facts["primary_key"]:
        yield KEY.good(f"{table} has one")
    else:
        yield KEY.warning(f"{table} has none", f"alter table {table} add primary key (message_id);")
    yield from _role_facts(facts, schema, role)


def _role_facts(facts: Facts, schema: str, role: str) -> Iterator[Finding]:
    """What keeps the role of Realtime's key from seeing messages."""
    table = f"{schema}.message"
    if not facts["role"]:
        cure = f"create role {quoted(role)};  -- or use the key of a role that exists"
        yield ROLE.warning(f"the key's, {role}, does not exist", cure)
        return
    yield ROLE.good(f"the key's, {role}, exists")
    if facts["schema_usage"]:
        yield SCHEMA_GRANT.good(f"{role} may use {schema}")
    else:
        yield SCHEMA_GRANT.warning(f"{role} may not use {schema}", f"grant usage on schema {schema} to {quoted(role)};")
    if facts["may_select"]:
        yield TABLE_GRANT.good(f"{role} may select from {table}")
    else:
        yield TABLE_GRANT.warning(f"{role} may not select from {table}", f"grant select on {table} to {quoted(role)};")
    if not facts["row_security"] or facts["passes_row_security"]:
        yield ROW_SECURITY.good(f"hides nothing of {table} from {role}")
    else:
        cure = f"create policy wakeup on {table} for select to {quoted(role)} using (true);"
        yield ROW_SECURITY.warning(f"hides every row of {table} from {role}", cure)


def _private_changes_facts(facts: Facts, schema: str, role: str) -> Iterator[Finding]:
    """What silences `postgres_changes` on a private channel."""
    yield from _changes_facts(facts, schema, role)
    yield _join_facts(facts, schema, role)


def _broadcast_facts(facts: Facts, schema: str, role: str) -> Iterator[Finding]:
    """What silences broadcasts from the database."""
    if facts["realtime_send"]:
        yield SEND.good("Supabase's function is there")
    else:
        cure = "OUTBOX_REALTIME_VIA=postgres_changes  # or start Realtime for this database, which makes the function"
        yield SEND.warning("Supabase's function is not there", cure)
    if facts["broadcast_trigger"]:
        yield BROADCASTER.good(f"enabled on {schema}.message")
    else:
        yield BROADCASTER.warning(f"none on {schema}.message", f"select {schema}.enable_broadcast();")
    yield _join_facts(facts, schema, role)


async def _sent(prerequisites: Prerequisites) -> list[Finding]:
    """Whether realtime.send, tried and rolled back, wrote a row. It raises nothing when it did not."""
    if not (await prerequisites.outbox().wakeup_facts("service_role"))["realtime_send"]:
        raise MissingPrerequisite("there is no realtime.send")
    facts, schema = await prerequisites.outbox().broadcast_facts(), prerequisites.schema
    fault, owner = facts["fault"], facts["owner"]
    if fault is None:
        return [SENDING.good("realtime.send was tried as the schema's owner, and wrote its row")]
    if "partition" in fault:
        cure = "start a worker: Realtime makes the day's partition when a client joins; then run `outbox doctor` again"
    elif "row-level security" in fault:
        cure = f"create policy outbox_send on realtime.messages for insert to {owner} with check (topic = '{schema}');"
    else:
        cure = _NO_CURE
    return [SENDING.warning(f"realtime.send writes nothing as {owner}, the schema's owner: {fault}", cure)]


def _join_facts(facts: Facts, schema: str, role: str) -> Finding:
    """Whether the key's role may join a private channel."""
    if facts["may_join_broadcast"]:
        return POLICY.good(f"{role} may read realtime.messages")
    condition = f"to {quoted(role)} using (realtime.topic() = '{schema}')"
    cure = f"create policy outbox_wakeup on realtime.messages for select {condition};"
    return POLICY.warning(f"no policy lets {role} read realtime.messages", cure)
