"""Examines what would wake a worker, on the very code that it would run, and names the cure of what is wrong.

Each finding is a fact that was looked up or a thing that was tried just now, never a guess from a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import anyio

from outbox.backoff import Backoff
from outbox.events import Event, SourceLost, SourceReady
from outbox.sources.listen import ListenSource
from outbox.sources.phoenix import claim
from outbox.sources.realtime import RealtimeSource
from outbox.wakeup import Wakeup

if TYPE_CHECKING:
    from outbox.config import Settings
    from outbox.events import Emit
    from outbox.store import Store
    from outbox.switchboard import Source

_TRY_FOR_S = 25.0
"""A refused join is told after five seconds, an unanswered one after fifteen."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined. `cure` is what to do, SQL where SQL does it; None when all is well."""

    what: str
    good: bool
    detail: str
    cure: str | None = None


async def examine(settings: Settings, store: Store) -> list[Finding]:
    """Examine everything that the mode may use. Raises OutboxError when the database cannot be asked."""
    configured = settings.realtime()
    role = "service_role"
    findings = []
    if configured is not None and settings.mode in ("auto", "realtime"):
        token = await configured[1].read()
        role = str(claim(token, "role") or role)
    facts = await store.wakeup_facts(role)
    if settings.mode in ("auto", "listen"):
        findings += list(_listen_facts(facts, settings.schema_name))
        findings.append(await _try("LISTEN", partial(_listen, settings, store)))
    if configured is not None and settings.mode in ("auto", "realtime"):
        wanted = _broadcast_facts if settings.realtime_via == "broadcast" else _changes_facts
        findings += list(wanted(facts, settings.schema_name, role))
        findings.append(await _try("Realtime", lambda wakeup, emit: RealtimeSource(*configured, wakeup, emit)))
    return findings


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


async def _try(what: str, make: Callable[[Wakeup, Emit], Source]) -> Finding:
    """Run a source until it is ready or has failed once."""
    told: list[Event] = []
    answered = anyio.Event()

    def hear(event: Event) -> None:
        told.append(event)
        answered.set()

    began_s = monotonic()
    async with anyio.create_task_group() as tasks:
        source = make(Wakeup(hear), hear)
        tasks.start_soon(source.run)
        with anyio.move_on_after(_TRY_FOR_S):
            await answered.wait()
        tasks.cancel_scope.cancel()
    match told[:1]:
        case [SourceReady()]:
            return Finding(what, good=True, detail=f"subscribed, and proved to hear, in {monotonic() - began_s:.2f} s")
        case [SourceLost(error=error)]:
            return Finding(what, good=False, detail=error, cure="see the reason; the worker polls meanwhile")
        case _:
            return Finding(what, good=False, detail=f"no answer within {_TRY_FOR_S:g} s", cure="is the address right?")


def _listen_facts(facts: dict[str, Any], schema: str) -> Iterator[Finding]:
    yield _fact(
        "notifying trigger",
        bool(facts["trigger_enabled"]),
        f"on {schema}.message",
        f"alter table {schema}.message enable trigger wakeup;",
    )


def _changes_facts(facts: dict[str, Any], schema: str, role: str) -> Iterator[Finding]:
    """What silences `postgres_changes`."""
    table = f"{schema}.message"
    yield _fact(
        "wal_level",
        facts["wal_level"] == "logical",
        f"is {facts['wal_level']}",
        "alter system set wal_level = logical;  -- and restart PostgreSQL",
    )
    create = "" if facts["publication"] else "create publication supabase_realtime; "
    yield _fact(
        "publication",
        bool(facts["published"]),
        f"supabase_realtime with {table}",
        f"{create}alter publication supabase_realtime add table {table};",
    )
    if facts["publication"]:
        yield _fact(
            "published operations",
            bool(facts["publishes_inserts"]),
            "inserts",
            "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');",
        )
    yield _fact(
        "primary key", bool(facts["primary_key"]), f"of {table}", f"alter table {table} add primary key (message_id);"
    )
    yield _fact(
        "role",
        bool(facts["role"]),
        f"{role}, of the key",
        f"use the key of a role that exists, or: create role {role};",
    )
    if not facts["role"]:
        return
    yield _fact(
        "schema grant", bool(facts["schema_usage"]), f"{role} on {schema}", f"grant usage on schema {schema} to {role};"
    )
    yield _fact("table grant", bool(facts["may_select"]), f"{role} on {table}", f"grant select on {table} to {role};")
    if facts["row_security"]:
        yield _fact(
            "row-level security",
            bool(facts["passes_row_security"]),
            f"on {table}, for {role}",
            f"create policy wakeup on {table} for select to {role} using (true);",
        )


def _broadcast_facts(facts: dict[str, Any], schema: str, role: str) -> Iterator[Finding]:
    """What silences broadcasts from the database."""
    yield _fact(
        "realtime.send",
        bool(facts["realtime_send"]),
        "Supabase's function",
        "this database is not Supabase's, or Realtime has never been started for it",
    )
    yield _fact(
        "broadcasting trigger",
        bool(facts["broadcast_trigger"]),
        f"on {schema}.message",
        f"select {schema}.enable_broadcast();",
    )
    yield _fact(
        "broadcast policy",
        bool(facts["may_join_broadcast"]),
        f"for {role} on realtime.messages",
        f"create policy outbox_wakeup on realtime.messages for select to {role} using (realtime.topic() = '{schema}');",
    )


def _fact(what: str, good: bool, detail: str, cure: str) -> Finding:
    return Finding(what, good, detail, None if good else cure)
