"""The toggle: from the command to every running worker, within a second, and kept."""

from __future__ import annotations

from contextlib import AsyncExitStack
from time import monotonic

import anyio
import pytest

from outbox.model.events import ModeChanged, SourceReady
from tests.support.eventually import eventually
from tests.support.running import Running, counts, fetch, running
from tests.support.sinks import FakeSink
from tests.support.sql import connected

pytestmark = pytest.mark.timeout(90)
BUSY_MACHINE_S = 4.0


async def set_mode(dsn: str, mode: str | None) -> None:
    await fetch(dsn, "select outbox.set_switch('mode', to_jsonb($1::text))", mode)


async def switched(worker: Running, mode: str, *, after: int = 0) -> None:
    await worker.log.wait_for(ModeChanged, lambda event: event.mode == mode, after=after)


@pytest.mark.parametrize("setting", ["listen", "poll"])
async def test_switch_reaches_every_worker_within_a_second_and_back(database: str, setting: str) -> None:
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(running(database, mode=setting, worker_name=f"w{n}")) for n in range(3)
        ]
        for worker in workers:
            await switched(worker, setting)
            if setting == "listen":
                await worker.log.wait_for(SourceReady)
        for wanted in ("poll", "listen", "poll"):
            if wanted == setting == "poll":
                continue
            marks = [len(worker.log) for worker in workers]
            began_s = monotonic()
            await set_mode(database, wanted)
            for worker, mark in zip(workers, marks, strict=True):
                if wanted != setting or mark > 3:
                    await switched(worker, wanted, after=mark)
            assert monotonic() - began_s < 1.0 + BUSY_MACHINE_S


async def test_switch_survives_a_restart_until_it_is_removed(database: str) -> None:
    await set_mode(database, "poll")
    async with running(database, mode="listen") as worker:
        changed = await worker.log.wait_for(ModeChanged)
        assert (changed.mode, changed.sources, changed.why) == ("poll", (), "set by outbox mode")
        mark = len(worker.log)
        await set_mode(database, None)
        changed = await worker.log.wait_for(ModeChanged, after=mark)
        assert (changed.mode, changed.why) == ("listen", "set by OUTBOX_MODE")


async def test_register_shows_the_mode_soon_after_the_change(database: str) -> None:
    async with running(database, mode="listen") as worker:
        await worker.log.wait_for(SourceReady)
        await set_mode(database, "poll")
        await switched(worker, "poll")
        shown = "select detail ->> 'mode' from outbox.worker"
        await eventually(lambda: fetch(database, shown), lambda rows: rows[0][0] == "poll", timeout_s=5)


async def test_switching_under_load_loses_and_doubles_nothing(database: str) -> None:
    """200 commits a second, two workers, to polling and back."""
    sink = FakeSink()
    total = 0

    async def produce() -> None:
        nonlocal total
        async with connected(database) as connection:
            began_s = monotonic()
            while True:
                await connection.execute("select outbox.enqueue('load')")
                total += 1
                await anyio.sleep(max(0.0, began_s + total / 200 - monotonic()))

    async with running(database, sink, worker_name="a") as a, running(database, sink, worker_name="b") as b:
        for worker in (a, b):
            await worker.log.wait_for(SourceReady)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(produce)
            for wanted in ("poll", "listen", "auto", "poll", "listen"):
                marks = len(a.log), len(b.log)
                sent_s = monotonic()
                await set_mode(database, wanted)
                for worker, mark in zip((a, b), marks, strict=True):
                    await switched(worker, wanted, after=mark)
                assert monotonic() - sent_s < 1.0 + BUSY_MACHINE_S
                handed_over = len(sink.received)
                await sink.wait_received(handed_over + 50)
            tasks.cancel_scope.cancel()
        total = (await fetch(database, "select count(*) from outbox.message_life"))[0][0]
        await sink.wait_until(lambda: len(sink.answered) >= total)
    assert len(sink.ids) == len(set(sink.ids)) == total
    assert await counts(database) == {"message": 0, "history": total, "dead_letter": 0}
