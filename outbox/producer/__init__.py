"""Enqueue messages from Python, in the transaction of the connection that the caller already has open.

    from outbox.producer import enqueue, signal_workflow, start_workflow

The first argument is an open asyncpg connection, psycopg 3 connection, SQLAlchemy 2 connection or session, or Django's
connection; the other arguments are those of the SQL function of the same name, which alone checks them. What comes
back is the message id, from asynchronous connections as a coroutine. Nothing here begins, commits or rolls back: the
message is there when the caller's transaction commits. On a connection in autocommit it is a transaction of its own.

`payload` and `input` are JSON (see `outbox.producer.payloads`): left out they are none at all, None is JSON's null. In
every other argument None is the same as leaving it out. While an OpenTelemetry span is current, it goes into `headers`.

Raises, before anything is sent: PayloadError where a value has no JSON form, TypeError for an argument or connection
of the wrong type, ValueError for a datetime without time zone, ConfigurationError for an unusable `schema`. What
PostgreSQL refuses is raised as the caller's own library raises it, and has failed the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from outbox.model.errors import PayloadError
from outbox.model.schema_name import DEFAULT_SCHEMA
from outbox.producer.calls import NOTHING, Call, new_call, new_messages
from outbox.producer.options import EnqueueOptions, NewMessage, SignalOptions, StartOptions
from outbox.producer.sending import returns_id, returns_ids

__all__ = ["NewMessage", "PayloadError", "enqueue", "enqueue_many", "signal_workflow", "start_workflow"]


@returns_id
def enqueue(
    topic: str, payload: object = NOTHING, *, schema: str = DEFAULT_SCHEMA, **options: Unpack[EnqueueOptions]
) -> Call:
    """Enqueue one message and return its id: the id of the unsettled message that has its `dedup_key`, if one has."""
    return new_call("enqueue", schema, {"topic": topic, "payload": payload}, options)


@returns_ids
def enqueue_many(messages: Iterable[NewMessage], *, schema: str = DEFAULT_SCHEMA) -> Call:
    """Enqueue messages in one statement; return their ids in this order. Each is a dict of enqueue's arguments."""
    return new_call("enqueue_many", schema, {"messages": new_messages(messages)}, {})


@returns_id
def start_workflow(
    workflow: str,
    workflow_id: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[StartOptions],
) -> Call:
    """Start a workflow once the transaction has committed; return the message id. `input` is its one argument."""
    arguments = {"workflow": workflow, "workflow_id": workflow_id, "input": input}
    return new_call("start_workflow", schema, arguments, options)


@returns_id
def signal_workflow(
    workflow_id: str,
    signal: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[SignalOptions],
) -> Call:
    """Signal a workflow once the transaction has committed; return the message id. `input` is the signal's argument."""
    arguments = {"workflow_id": workflow_id, "signal": signal, "input": input}
    return new_call("signal_workflow", schema, arguments, options)
