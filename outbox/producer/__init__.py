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

from collections.abc import Coroutine, Iterable
from typing import Any, Unpack, overload
from uuid import UUID

from outbox.model.errors import PayloadError
from outbox.model.schema_name import DEFAULT_SCHEMA
from outbox.producer.calls import NOTHING, new_call, new_messages
from outbox.producer.drivers import AsyncConnection, SyncConnection, send, send_for_one
from outbox.producer.options import EnqueueOptions, NewMessage, SignalOptions, StartOptions

__all__ = ["NewMessage", "PayloadError", "enqueue", "enqueue_many", "signal_workflow", "start_workflow"]


@overload
def enqueue(
    connection: SyncConnection,
    topic: str,
    payload: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[EnqueueOptions],
) -> UUID: ...
@overload
def enqueue(
    connection: AsyncConnection,
    topic: str,
    payload: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[EnqueueOptions],
) -> Coroutine[Any, Any, UUID]: ...
def enqueue(
    connection: SyncConnection | AsyncConnection,
    topic: str,
    payload: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[EnqueueOptions],
) -> UUID | Coroutine[Any, Any, UUID]:
    """Enqueue one message and return its id: the id of the unsettled message that has its `dedup_key`, if one has."""
    return send_for_one(connection, new_call("enqueue", schema, {"topic": topic, "payload": payload}, options))


@overload
def enqueue_many(
    connection: SyncConnection, messages: Iterable[NewMessage], *, schema: str = DEFAULT_SCHEMA
) -> list[UUID]: ...
@overload
def enqueue_many(
    connection: AsyncConnection, messages: Iterable[NewMessage], *, schema: str = DEFAULT_SCHEMA
) -> Coroutine[Any, Any, list[UUID]]: ...
def enqueue_many(
    connection: SyncConnection | AsyncConnection, messages: Iterable[NewMessage], *, schema: str = DEFAULT_SCHEMA
) -> list[UUID] | Coroutine[Any, Any, list[UUID]]:
    """Enqueue messages in one statement; return their ids in this order. Each is a dict of enqueue's arguments."""
    return send(connection, new_call("enqueue_many", schema, {"messages": new_messages(messages)}, {}))


@overload
def start_workflow(
    connection: SyncConnection,
    workflow: str,
    workflow_id: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[StartOptions],
) -> UUID: ...
@overload
def start_workflow(
    connection: AsyncConnection,
    workflow: str,
    workflow_id: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[StartOptions],
) -> Coroutine[Any, Any, UUID]: ...
def start_workflow(
    connection: SyncConnection | AsyncConnection,
    workflow: str,
    workflow_id: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[StartOptions],
) -> UUID | Coroutine[Any, Any, UUID]:
    """Start a workflow once the transaction has committed; return the message id. `input` is its one argument."""
    arguments = {"workflow": workflow, "workflow_id": workflow_id, "input": input}
    return send_for_one(connection, new_call("start_workflow", schema, arguments, options))


@overload
def signal_workflow(
    connection: SyncConnection,
    workflow_id: str,
    signal: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[SignalOptions],
) -> UUID: ...
@overload
def signal_workflow(
    connection: AsyncConnection,
    workflow_id: str,
    signal: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[SignalOptions],
) -> Coroutine[Any, Any, UUID]: ...
def signal_workflow(
    connection: SyncConnection | AsyncConnection,
    workflow_id: str,
    signal: str,
    input: object = NOTHING,
    *,
    schema: str = DEFAULT_SCHEMA,
    **options: Unpack[SignalOptions],
) -> UUID | Coroutine[Any, Any, UUID]:
    """Signal a workflow once the transaction has committed; return the message id. `input` is the signal's argument."""
    arguments = {"workflow_id": workflow_id, "signal": signal, "input": input}
    return send_for_one(connection, new_call("signal_workflow", schema, arguments, options))
