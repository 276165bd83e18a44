"""A connection to the database under test that single statements share: a new one for each costs thirty times as much."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

_NEEDS_A_NEW_ONE = re.compile(r"\b(alter|create|drop)\s+(database|role|system|user)\b|terminate_backend", re.IGNORECASE)
"""What later sessions see and earlier ones do not, or what other sessions are in the way of."""
_homes: dict[str, asyncio.AbstractEventLoop] = {}
_idle: dict[str, asyncpg.Connection[asyncpg.Record]] = {}


@asynccontextmanager
async def keeping(dsn: str) -> AsyncIterator[None]:
    """For the block, let statements on this database share a connection."""
    _homes[dsn] = asyncio.get_running_loop()
    try:
        yield
    finally:
        await _close(dsn)
        del _homes[dsn]


@asynccontextmanager
async def connection_for(dsn: str, statement: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection in the state of a new one. It is one, unless the block of `keeping` is open and one is idle."""
    if _NEEDS_A_NEW_ONE.search(statement):
        for each in list(_idle):
            await _close(each)
    connection = _taken(dsn) or await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        yield connection
        if _may_keep(dsn) and not _NEEDS_A_NEW_ONE.search(statement):
            await connection.reset(timeout=10)
            if _may_keep(dsn):  # another one may have come back meanwhile
                _idle[dsn] = connection
    finally:
        if _idle.get(dsn) is not connection:
            await connection.close(timeout=10)


def _taken(dsn: str) -> asyncpg.Connection[asyncpg.Record] | None:
    connection = _idle.pop(dsn, None) if _homes.get(dsn) is asyncio.get_running_loop() else None
    return None if connection is None or connection.is_closed() else connection


def _may_keep(dsn: str) -> bool:
    return _homes.get(dsn) is asyncio.get_running_loop() and dsn not in _idle


async def _close(dsn: str) -> None:
    connection = _idle.pop(dsn, None)
    if connection and _homes[dsn] is asyncio.get_running_loop():
        await connection.close(timeout=10)
    elif connection:  # a test with a loop of its own
        connection.terminate()
