"""What a type checker must conclude. Never run: `make check` checks it, and an ignore that is not needed is an error."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type
from uuid import UUID

import asyncpg
import django.db
import psycopg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox.producer import (
    NewMessage,
    cancel,
    cancel_workflow,
    enqueue,
    enqueue_many,
    signal_with_start_workflow,
    signal_workflow,
    start_workflow,
    terminate_workflow,
)


def synchronous(
    psycopg_connection: psycopg.Connection,
    connection: Connection,
    session: Session,
    scoped: scoped_session[Session],
) -> None:
    """Synchronous connections give the id."""
    assert_type(enqueue(psycopg_connection, "t"), UUID)
    assert_type(enqueue(connection, "t"), UUID)
    assert_type(enqueue(session, "t"), UUID)
    assert_type(enqueue(scoped, "t"), UUID)
    assert_type(enqueue(django.db.connection, "t"), UUID)
    assert_type(enqueue(django.db.connections["other"], "t"), UUID)
    assert_type(start_workflow(session, "W", "w", {"n": 1}, task_queue="q"), UUID)
    assert_type(signal_workflow(session, "w", "s", args=[1, "two"]), UUID)
    assert_type(signal_with_start_workflow(session, "W", "w", "s", 1, 2, task_queue="q", signal_args=None), UUID)
    assert_type(cancel_workflow(session, "w", reason="r"), UUID)
    assert_type(terminate_workflow(session, "w", run_id="r"), UUID)
    assert_type(cancel(session, UUID(int=1)), bool | None)
    assert_type(enqueue_many(session, [{"topic": "t", "payload": 1}, NewMessage(topic="u")]), list[UUID])


async def asynchronous(
    asyncpg_connection: asyncpg.Connection[asyncpg.Record],
    pooled: PoolConnectionProxy[asyncpg.Record],
    psycopg_connection: psycopg.AsyncConnection,
    connection: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    """Asynchronous ones give it later."""
    assert_type(await enqueue(asyncpg_connection, "t"), UUID)
    assert_type(await enqueue(pooled, "t"), UUID)
    assert_type(await enqueue(psycopg_connection, "t"), UUID)
    assert_type(await enqueue(connection, "t"), UUID)
    assert_type(await enqueue(session, "t"), UUID)
    assert_type(await enqueue(scoped, "t"), UUID)
    later: Coroutine[Any, Any, UUID] = enqueue(session, "t")
    await later
    assert_type(await start_workflow(session, "W", "w"), UUID)
    assert_type(await signal_workflow(asyncpg_connection, "w", "s", None), UUID)
    assert_type(await enqueue_many(asyncpg_connection, [{"topic": "t"}]), list[UUID])
    assert_type(await cancel(session, UUID(int=1)), bool | None)


def mistakes(session: Session, pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """These must not pass."""
    enqueue(pool, "t")  # type: ignore[call-overload]
    enqueue("postgresql://", "t")  # type: ignore[call-overload]
    enqueue(session, "t", run_id="r")  # type: ignore[call-overload]
    enqueue(session, "t", priority="high")  # type: ignore[call-overload]
    start_workflow(session, "W", 42)  # type: ignore[call-overload]
    enqueue_many(session, [{"payload": 1}])  # type: ignore[typeddict-item]


async def forgotten(session: AsyncSession) -> None:
    """It is not awaited, so nothing is sent."""
    enqueue(session, "t")  # type: ignore[unused-coroutine]
