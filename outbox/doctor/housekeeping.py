"""Examines what keeps the tables small: vacuum, and what holds it up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from outbox.model.finding import Check, Finding

if TYPE_CHECKING:
    from outbox.doctor.queries import Facts
    from outbox.doctor.runner import Prerequisites

AUTOVACUUM = Check("autovacuum", ("warning",))
XMIN = Check("oldest xmin", ("warning",))
DEAD = Check("dead tuples", ("warning",))
SEQUENCES = Check("sequences", ("warning",))
CHECKS = (AUTOVACUUM, XMIN, DEAD, SEQUENCES)

HELD_TOO_LONG_S = 300.0
_MANY_TRANSACTIONS = 100_000
"""For a holder with an unknown age."""
_BEHIND_TRANSACTIONS = 1_000_000
"""For a replication slot that is being read: as the alert OutboxOldTransaction."""
_MANY_DEAD, _DEAD_TO_LIVE = 100_000, 10
"""As the alert OutboxDeadTuples."""
_SHOWN = 5


async def examine_housekeeping(prerequisites: Prerequisites) -> list[Finding]:
    """Raises OutboxError."""
    outbox = prerequisites.outbox()
    behind = await outbox.sequence_facts()
    return [*judged_housekeeping(await outbox.housekeeping_facts(), prerequisites.schema), judged_sequences(behind)]


def judged_sequences(behind: list[str]) -> Finding:
    """Whether new numbers are higher than all before."""
    if not behind:
        return SEQUENCES.good("each above the numbers in use")
    what = (
        f"{', '.join(behind)} give numbers that are in use, after a restore perhaps: new messages overtake older ones"
    )
    return SEQUENCES.warning(f"{what} of their key", "outbox migrate")


def judged_housekeeping(facts: Facts, schema: str) -> Iterator[Finding]:
    """What slows the worker down in the long run. Nothing of it keeps a message from its delivery."""
    yield from _autovacuum(facts, schema)
    held = [found for holder in facts["holders"] if (found := _held_by(holder))]
    yield from held[:_SHOWN]
    if not held:
        oldest = max((holder["transactions"] for holder in facts["holders"]), default=0)
        yield XMIN.good(f"not held for more than {HELD_TOO_LONG_S / 60:g} min; {oldest} transactions old")
    tables = sorted(facts["tables"], key=lambda table: -table["dead"])
    many = [table for table in tables if table["dead"] > max(_MANY_DEAD, _DEAD_TO_LIVE * table["live"])]
    for table in many:
        ago = table["vacuumed_s_ago"]
        when = "never" if ago is None else f"{ago / 60:.0f} min ago"
        yield DEAD.warning(
            f"{table['dead']} dead rows in {schema}.{table['name']}, {table['live']} live; last vacuum: {when}",
            f"vacuum (analyze) {schema}.{table['name']};",
        )
    if not many:
        yield DEAD.good(f"{tables[0]['dead']} at most in a table")


def _autovacuum(facts: Facts, schema: str) -> Iterator[Finding]:
    off = [name for name in ("autovacuum", "track_counts") if not facts[name]]
    for name in off:
        cure = f"alter system set {name} = on; select pg_reload_conf();"
        yield AUTOVACUUM.warning(f"{name} is off in the server: dead rows stay, and claims become slower", cure)
    for table in facts["unvacuumed"]:
        cure = f"alter table {schema}.{table} reset (autovacuum_enabled);"
        yield AUTOVACUUM.warning(f"off for {schema}.{table}: its dead rows stay", cure)
    if not off and not facts["unvacuumed"]:
        yield AUTOVACUUM.good("on, for every table")


def _held_by(holder: dict[str, Any]) -> Finding | None:
    """What to say of a session or slot that keeps dead rows from vacuum for long."""
    name, held_s, transactions = holder["name"], holder["held_s"], holder["transactions"]
    since = f"for {held_s / 60:.0f} min, " if held_s is not None else ""
    age = f"{since}{transactions} transactions"
    too_long = held_s > HELD_TOO_LONG_S if held_s is not None else transactions > _MANY_TRANSACTIONS
    match holder["kind"]:
        case "prepared" if too_long:
            quoted = name.replace("'", "''")
            return XMIN.warning(
                f"held {age}, by the prepared transaction {name!r} of {holder['who']}", f"rollback prepared '{quoted}';"
            )
        case "slot" if not holder["active"] or transactions > _BEHIND_TRANSACTIONS:
            state = "is being read" if holder["active"] else "is not read"
            return XMIN.warning(
                f"held {age}, by the {holder['application']} replication slot {name}, which {state}",
                f"select pg_drop_replication_slot('{name}');",
            )
        case "session" if holder["standby"] and transactions > _BEHIND_TRANSACTIONS:
            return XMIN.warning(
                f"held {age}, by a query on the standby {holder['application']} (process {name})",
                "alter system set hot_standby_feedback = off; select pg_reload_conf();  -- on that standby",
            )
        case "session" if too_long and not holder["standby"]:
            who = f"{holder['application'] or 'a program without a name'}, user {holder['who']}"
            state = holder["state"] or "its state is hidden: grant pg_read_all_stats"
            return XMIN.warning(
                f"held {age}, by process {name} of {who} ({state})", f"select pg_terminate_backend({name});"
            )
    return None
