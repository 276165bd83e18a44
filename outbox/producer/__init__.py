"""Enqueue messages from Python, in the transaction of the connection that the caller already has open.

    from outbox.producer import enqueue, signal_workflow, start_workflow

The first argument is an open asyncpg connection, psycopg 3 connection, SQLAlchemy 2 connection or session, or Django's
connection; the other arguments are those of the SQL function of the same name, which alone checks them. The functions
return the message id (`cancel` returns an answer), over asynchronous connections as a coroutine. They do not begin,
commit or roll back anything: the message is there when the caller's transaction commits. On a connection in autocommit
it is a transaction of its own.

`payload`, `input` and `signal_input` are JSON (see `outbox.producer.payloads`): left out they are none at all, None is
JSON's null. In every other argument None is the same as leaving it out. While an OpenTelemetry span is current, it goes
into `headers`.

Raises, before anything is sent: PayloadError where a value has no JSON form, TypeError for an argument or connection
of the wrong type, ValueError for a datetime without time zone, ConfigurationError for an unusable `schema`. What
PostgreSQL refuses is raised as the caller's own library raises it, and has failed the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack
from uuid import UUID

from outbox.model.errors import PayloadError
from outbox.model.schema_name import DEFAULT_SCHEMA
from outbox.producer.calls import NOTHING, Call, new_call, new_messages
from outbox.producer.options import (
    EndOptions,
    EnqueueOptions,
    NewMessage,
    SignalOptions,
    SignalWithStartOptions,
    StartOptions,
)
from outbox.producer.sending import returns_answer, returns_id, returns_ids

__all__ = [
    "NewMessage",
    "PayloadError",
    "cancel",
    "cancel_workflow",
    "enqueue",
    "enqueue_many",
    "signal_with_start_workflow",
    "signal_workflow",
    "start_workflow",
    "terminate_workflow",
]


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


@returns_id
def signal_with_start_workflow(
    workflow: str,
    workflow_id: str,
    signal: str,
    input: object = NOTHING,
    signal_input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[SignalWithStartOptions],
) -> Call:
    """Signal a workflow, and start it first if it does not run; return the message id.

    `input` is the workflow's argument, `signal_input` the signal's.
    """
    arguments = {"workflow": workflow, "workflow_id": workflow_id, "signal": signal}
    inputs = {"input": input, "signal_input": signal_input}
    return new_call("signal_with_start_workflow", schema, arguments | inputs, options)


@returns_id
def cancel_workflow(workflow_id: str, *, schema: str = DEFAULT_SCHEMA, **options: Unpack[EndOptions]) -> Call:
    """Ask a workflow to cancel itself once the transaction has committed; return the message id."""
    return new_call("cancel_workflow", schema, {"workflow_id": workflow_id}, options)


@returns_id
def terminate_workflow(workflow_id: str, *, schema: str = DEFAULT_SCHEMA, **options: Unpack[EndOptions]) -> Call:
    """Terminate a workflow once the transaction has committed; return the message id."""
    return new_call("terminate_workflow", schema, {"workflow_id": workflow_id}, options)


@returns_answer
def cancel(message_id: UUID, *, schema: str = DEFAULT_SCHEMA) -> Call:
    """Take a message back before its delivery.

    Returns True if it is taken back once the transaction has committed, False if a worker holds it, and None if no
    unsettled message has this id.
    """
    return new_call("cancel", schema, {"message_id": message_id}, {})
