"""The task of one contender: drain a backlog, pick up single jobs. In a database of its own, with two processes."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio
import asyncpg

from outbox_bench.peers.cache import HERE, Cache
from outbox_bench.peers.process import Contender, contending

PATIENCE_S = 60.0
"""For a single task of a contender. A backlog has the limit of `Drain` instead."""
_MARKS = 50
_SETTLED_EVERY_S = 0.002
_WARM_UP = 5
_PAUSE_S = (0.01, 0.03)
"""Pause between two pick-ups once the queue is empty. It is random, so that it does not follow a timer."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One that takes part: what it is called, and which program it is."""

    name: str
    program: str
    """Its file in this folder, with the suffix that says what runs it."""
    starts_workflows: bool = False
    """Whether a job starts a workflow, where it does nothing otherwise."""

    @property
    def language(self) -> Literal["ours", "python", "node"]:
        """The language: decides which interpreter and libraries it needs."""
        return "ours" if self.program == "ours.py" else "node" if self.program.endswith(".mjs") else "python"

    @property
    def database(self) -> str:
        """The name of the database that it has for itself."""
        stem = self.program.rpartition(".")[0]
        return f"outbox_bench_{stem}{'_starts' if self.starts_workflows else ''}"


@dataclass(frozen=True, slots=True)
class Drain:
    """How a backlog was drained. `complete` is whether it was before the limit; if not, the rate is of what began."""

    per_s: float
    complete: bool


@dataclass(frozen=True, slots=True)
class PickUp:
    """One job's times to its beginning, in milliseconds.

    From just before its enqueue, and from when its producer saw the commit acknowledged, before which it may begin.
    """

    from_enqueue_ms: float
    from_commit_ms: float


@dataclass(frozen=True, slots=True)
class RaceServers:
    """Where entrants are measured: one server, with a database for each, and on the other side one Temporal."""

    server: str
    """URL of a database of the server. Its role may create databases."""
    cache: Cache
    node: Path | None
    temporal_address: str | None

    def url(self, entrant: Entrant) -> str:
        """URL of its database."""
        return urlsplit(self.server)._replace(path=f"/{entrant.database}").geturl()

    @asynccontextmanager
    async def database(self, entrant: Entrant) -> AsyncIterator[None]:
        """A new database for it, dropped at the end."""
        drop = f'drop database if exists "{entrant.database}" with (force)'
        await self._administer(drop, f'create database "{entrant.database}"')
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._administer(drop)

    @asynccontextmanager
    async def process(self, entrant: Entrant) -> AsyncIterator[Contender]:
        """One process of it."""
        if entrant.language == "ours":
            command, directory = [sys.executable, "-m", "outbox_bench.peers.ours"], HERE.parent.parent
        else:
            directory = self.cache.sources
            command = {
                "python": [str(self.cache.python), "-m", f"outbox_bench.peers.{entrant.program.removesuffix('.py')}"],
                "node": [str(self.node), f"outbox_bench/peers/{entrant.program}"],
            }[entrant.language]
        address = self.temporal_address if entrant.starts_workflows else None
        environment = {"TEMPORAL_ADDRESS": address} if address else {}
        arguments = [self.url(entrant), *(["start"] if entrant.starts_workflows else [])]
        with anyio.fail_after(PATIENCE_S) as retry:
            async with contending(entrant.name, [*command, *arguments], directory, environment) as contender:
                retry.deadline = float("inf")
                yield contender

    async def _administer(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.server, timeout=PATIENCE_S)
        try:
            for statement in statements:
                await connection.execute(statement, timeout=PATIENCE_S)
        finally:
            await connection.close(timeout=PATIENCE_S)


class Trial:
    """One entrant with its producer at hand and a look at its tables."""

    def __init__(
        self, ground: RaceServers, entrant: Entrant, producer: Contender, connection: asyncpg.Connection
    ) -> None:
        self._ground = ground
        self._entrant = entrant
        self._producer = producer
        self._connection = connection
        self._unfinished = ""

    @classmethod
    @asynccontextmanager
    async def of(cls, ground: RaceServers, entrant: Entrant) -> AsyncIterator[Trial]:
        """A trial for the block."""
        async with ground.process(entrant) as producer:
            connection = await asyncpg.connect(ground.url(entrant), timeout=PATIENCE_S)
            try:
                yield cls(ground, entrant, producer, connection)
            finally:
                connection.terminate()

    async def prepare(self) -> dict[str, Any]:
        """Have the tables made; return `versions` and `settings`."""
        with anyio.fail_after(PATIENCE_S):
            about = await self._producer.do("prepare")
        self._unfinished = about["unfinished"]
        return about

    async def drain(self, jobs: int, limit_s: float) -> Drain:
        """Fill, start a worker, and see how fast it works; `limit_s` counts from its first job."""
        with anyio.fail_after(10 * PATIENCE_S):
            await self._producer.do("fill", jobs)
            await self._connection.execute("vacuum analyze")
            await self._connection.execute("checkpoint")
        async with self._ground.process(self._entrant) as worker:
            with anyio.fail_after(PATIENCE_S):
                await worker.do("work", max(1, jobs // _MARKS))
                first, first_ns = await worker.begun()
            count, at_ns = first, first_ns
            with anyio.move_on_after(limit_s):
                while count < jobs:
                    count, at_ns = await worker.begun()
                ended_ns = await self._settled_ns()
                return Drain(jobs / ((ended_ns - first_ns) / 1e9), complete=True)
            return Drain((count - first) / max((at_ns - first_ns) / 1e9, 1e-9), complete=False)

    async def pick_up(self, jobs: int) -> list[PickUp]:
        """Put jobs into the empty queue of an idle worker, one at a time."""
        with anyio.fail_after(PATIENCE_S):
            await self._producer.do("fill", 0)
        picked: list[PickUp] = []
        async with self._ground.process(self._entrant) as worker:
            with anyio.fail_after(PATIENCE_S):
                await worker.do("work", 1)
            for number in range(_WARM_UP + jobs):
                with anyio.fail_after(PATIENCE_S):
                    enqueued = await self._producer.do("enqueue")
                    _, at_ns = await worker.begun()
                    await self._settled_ns()
                if number >= _WARM_UP:
                    since = (at_ns - enqueued["sent_ns"]) / 1e6, (at_ns - enqueued["committed_ns"]) / 1e6
                    picked.append(PickUp(*since))
                await anyio.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - no secret
        return picked

    async def _settled_ns(self) -> int:
        """Return when the last job was finished. It polls only when few are left, so that it costs little."""
        while await self._connection.fetchval(self._unfinished):  # noqa: ASYNC110 - no peer reports it
            await anyio.sleep(_SETTLED_EVERY_S)
        return time.monotonic_ns()
