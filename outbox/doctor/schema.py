"""Examines the outbox's schema: whether it is this version's, and what the worker's user may do in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from outbox.model.finding import Check, Finding, quoted
from outbox.store.migrations import steps_of

if TYPE_CHECKING:
    from outbox.doctor.runner import Prerequisites
    from outbox.store.migrations import Step

SCHEMA = Check("schema version", ("fault",))
GRANTS = Check("grants", ("warning", "fault"))
HOME = Check("home", ("warning",))
VERSIONED = (SCHEMA, GRANTS)
CHECKS = (*VERSIONED, HOME)
NEEDED = (
    *(("message", privilege) for privilege in ("select", "update", "delete")),
    *(("history", privilege) for privilege in ("select", "insert")),
    *(("dead_letter", privilege) for privilege in ("select", "insert", "update")),
    *(("delivered_key", privilege) for privilege in ("select", "insert", "update", "delete")),
    *(("worker", privilege) for privilege in ("select", "insert", "update", "delete")),
    *((table, "select") for table in ("control", "home", "migration", "pause")),
    *(("uptime", privilege) for privilege in ("select", "insert")),
    *(("topic_limit", privilege) for privilege in ("select", "update")),
    *(("ended_rule", privilege) for privilege in ("select", "update", "delete")),
)
"""Tables, each with a privilege without which some statement of a worker is refused."""
NEEDED_FUNCTIONS = (
    *("lane", "matches", "due_at", "wake", "probe", "take_from_limit"),
    *(
        "call_sleepers",
        "change_alone",
        "note_uptime",
        "claim_may_be_lost",
        "home_fault",
        "look_home",
        "place",
        "expiry",
        "create_history_partitions",
        "drop_history_partitions",
    ),
)
"""Functions that a worker calls."""
_MIGRATE = "outbox migrate"
_SHOWN = 5
"""Missing rights that one line names; the cure grants all."""


async def examine_schema(prerequisites: Prerequisites) -> list[Finding]:
    """Ask what may be done, then for the version, which itself needs a right. Raises OutboxError."""
    questions, schema = prerequisites.questions(), prerequisites.schema
    rights = await questions.grant_facts(NEEDED, NEEDED_FUNCTIONS)
    if not rights["schema"]:
        return [
            SCHEMA.fault(f"the database has no schema {schema!r}", _MIGRATE),
            GRANTS.untried(f"there is no schema {schema!r}"),
        ]
    granted = list(judged_grants(rights, schema))
    if not rights["usage"] or f"select on {schema}.migration" in rights["missing"]:
        return [SCHEMA.untried(f"{rights['user']} may not read {schema}.migration"), *granted]
    # A schema of that name without migrations has no register, and the query for it is refused.
    steps = steps_of(await questions.register() if rights["register"] else [], schema)
    return [judged_version(steps, schema), *granted]


def judged_version(steps: Iterable[Step], schema: str) -> Finding:
    """Whether this version can work with the schema."""
    by_state: dict[str, list[str]] = {}
    last = ""
    for step in steps:
        by_state.setdefault(step.state, []).append(last := step.label)
    if unknown := by_state.get("unknown"):
        return SCHEMA.fault(
            f"{schema} is newer than this version: it has {', '.join(unknown)}, which does not serve it",
            "pip install --upgrade temporal-outbox  # the version that wrote it, or a later one",
        )
    if edited := by_state.get("edited"):
        return SCHEMA.fault(
            f"{', '.join(edited)} was edited after it had been applied",
            "restore the file as it was, and change the schema by a new migration",
        )
    if pending := by_state.get("pending"):
        older = f"{schema} is older than this version: {', '.join(pending)} missing"
        return SCHEMA.fault(older if "applied" in by_state else f"{schema} holds no outbox", _MIGRATE)
    if newer := by_state.get("newer"):
        return SCHEMA.good(f"{schema} is newer than this version ({', '.join(newer)}), and still serves it")
    return SCHEMA.good(f"{schema} is this version's, {last}")


def judged_grants(rights: dict[str, Any], schema: str) -> Iterator[Finding]:
    """Whether the user may do what a worker does. There is a role that may, named after the schema."""
    user = rights["user"]
    missing = [*rights["missing"], *(f"execute on {schema}.{name}" for name in rights["functions"])]
    if not rights["usage"]:
        missing.insert(0, f"usage on schema {schema}")
    cure = f"grant {schema}_worker to {quoted(user)};"
    if rights.get("member"):  # and does not inherit
        inherits = f"grant {schema}_worker to {quoted(user)} with inherit true;"
        cure = inherits if rights["grants_inherit"] else f"alter role {quoted(user)} inherit;"
    if missing:
        more = f" and {len(missing) - _SHOWN} more rights" if len(missing) > _SHOWN else ""
        yield GRANTS.fault(f"{user} lacks {', '.join(missing[:_SHOWN])}{more}", cure)
    if rights["hidden"]:
        yield GRANTS.fault(f"row-level security hides every row of {', '.join(rights['hidden'])} from {user}", cure)
    if not rights["partitions"] and not missing:
        detail = f"{user} may not make partitions of {schema}.history: one that is never dropped will take it all"
        yield GRANTS.warning(detail, cure)
    if not missing and not rights["hidden"] and rights["partitions"]:
        yield GRANTS.good(f"{user} may do all that a worker does")


async def examine_home(prerequisites: Prerequisites) -> list[Finding]:
    """Find out whether this database is the outbox's own, not a copy. Raises OutboxError."""
    fault = await prerequisites.outbox().home_fault()
    if fault is None:
        return [HOME.good("this database is no copy")]
    cure = "outbox adopt  # once the original is out of use, or Temporal is another one; after a restore audit first"
    return [HOME.warning(f"{fault}: everything is paused", cure)]
