"""Our own relay among the contenders: the worker with default settings, history on, and a sink that only notes.

With Temporal's address the sink is the real one, and a message counts once its start is acknowledged.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import asyncpg

from outbox import __version__
from outbox.config import settings as config
from outbox.model.message import Message
from outbox.model.sink import Delivered, Outcome, Sink, SinkContext, Unavailable, Unclear
from outbox.store.migrations import migrate
from outbox.worker.worker import Worker, tune_garbage_collector
from outbox_bench.peers.talk import Marks, run, serve_commands, timed
from outbox_temporal.sink import temporal_sink

_EMPTY = "truncate outbox.message, outbox.history, outbox.dead_letter"
_BULK = """
select outbox.enqueue_many((
    select json_agg(json_build_object('topic', 'bench', 'payload', json_build_object('organization_id', 42)))
    from generate_series(1, $1::int)))
"""
_ONE = "select outbox.enqueue('bench', '{\"organization_id\": 42}')"
_START = (
    "select outbox.start_workflow('Bench', gen_random_uuid()::text, '{\"organization_id\": 42}', task_queue => 'bench')"
)
_STARTS = f"{_START} from generate_series(1, $1::int)"
_AT_ONCE = 10_000
_DELIVERED = Delivered("bench", "run")


class Noting:
    """Notes that a delivery began and accepts it, or has `inner` deliver it and notes its end."""

    def __init__(self, began: Marks, inner: Sink | None) -> None:
        self._began = began
        self._inner = inner

    async def deliver(self, message: Message) -> Outcome:
        """Deliver, and note."""
        if self._inner is None:
            self._began()
            return _DELIVERED
        outcome = await self._inner.deliver(message)
        self._began()
        return outcome

    async def probe(self) -> Unavailable | Unclear | None:
        """Be available whenever the inner sink is."""
        return None if self._inner is None else await self._inner.probe()


@asynccontextmanager
async def noting_sink(began: Marks, starts: bool, context: SinkContext) -> AsyncIterator[Noting]:
    """The sink factory."""
    if starts:
        async with temporal_sink(context) as inner:
            yield Noting(began, inner)
    else:
        yield Noting(began, None)


async def main(dsn: str, *, starts: bool) -> None:
    """Serve the benchmark."""
    await migrate(dsn)
    connection = await asyncpg.connect(dsn)
    bulk, one = (_STARTS, _START) if starts else (_BULK, _ONE)

    async def prepare() -> dict[str, object]:
        return {
            "versions": {"temporal-outbox": __version__},
            "settings": {"history": True},
            "unfinished": "select exists (select from outbox.message)",
        }

    async def fill(jobs: int) -> None:
        await connection.execute(_EMPTY)
        for start in range(0, jobs, _AT_ONCE):
            await connection.execute(bulk, min(_AT_ONCE, jobs - start))

    async def enqueue() -> dict[str, int]:
        return await timed(connection.execute(one))

    async def work(every: int) -> None:
        tune_garbage_collector()
        worker = Worker(config.load(database_url=dsn), partial(noting_sink, Marks(every), starts), lambda _event: None)
        await tasks.start(worker.run)

    async with anyio.create_task_group() as tasks:
        await serve_commands({"prepare": prepare, "fill": fill, "enqueue": enqueue, "work": work})


if __name__ == "__main__":
    run(main(sys.argv[1], starts="start" in sys.argv[2:]))
