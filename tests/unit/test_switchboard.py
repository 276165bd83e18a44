"""Which sources run in which mode, and on what evidence `auto` changes its mind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from outbox.model.events import ModeChanged
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.selection import Mode, Source, SourceSelection
from tests.support.event_log import EventLog

pytestmark = pytest.mark.timeout(30)


class SilentSource:
    """A source that does nothing; the test plays its part."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.running = 0

    async def run(self) -> None:
        self.running += 1
        try:
            await anyio.sleep_forever()
        finally:
            self.running -= 1


class Board:
    """A switchboard, its sources, and the clock by which it judges them."""

    def __init__(self, mode: Mode, *names: str) -> None:
        self.now_s = 1000.0
        self.log = EventLog()
        self.wakeup = Wakeup(self.log, lambda: self.now_s)
        self.sources = {name: SilentSource() for name in names}
        self.changes = 0
        self.changed = anyio.Event()
        sources: dict[str, Source] = dict(self.sources)
        self.selection = SourceSelection(
            sources, self.wakeup, self.log, mode, changed=self.change, clock=lambda: self.now_s
        )

    def change(self) -> None:
        self.changes += 1
        self.changed.set()
        self.changed = anyio.Event()

    async def runs(self, *names: str) -> ModeChanged:
        """Return the event once exactly these sources run."""
        changed = await self.log.wait_for(
            ModeChanged, lambda event: event is self.log.of(ModeChanged)[-1] and event.sources == names
        )
        await anyio.wait_all_tasks_blocked()
        assert {name for name, source in self.sources.items() if source.running} == set(names)
        return changed


@asynccontextmanager
async def board(mode: Mode, *names: str) -> AsyncIterator[Board]:
    made = Board(mode, *names)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.selection.run)
        yield made
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("mode", "runs"), [("auto", ("listen",)), ("listen", ("listen",)), ("realtime", ("realtime",)), ("poll", ())]
)
async def test_setting_decides(mode: Mode, runs: tuple[str, ...]) -> None:
    async with board(mode, "listen", "realtime") as b:
        assert (await b.runs(*runs)).why == "set by OUTBOX_MODE"
        assert b.selection.report()["mode_from"] == "OUTBOX_MODE"


async def test_switch_overrides_the_setting_until_it_is_removed() -> None:
    async with board("listen", "listen", "realtime") as b:
        await b.runs("listen")
        b.selection.apply({"mode": "poll", "other": 1})
        assert (await b.runs()).why == "set by outbox mode"
        reported = {"mode": "poll", "mode_from": "outbox mode", "configured": ["listen", "realtime"], "sources": {}}
        assert b.selection.report() == reported
        b.selection.apply({})
        assert (await b.runs("listen")).why == "set by OUTBOX_MODE"
        assert b.changes >= 3


@pytest.mark.parametrize("nonsense", ["nonsense", 5, None, ["poll"], {"a": 1}])
async def test_switch_that_is_no_mode_changes_nothing(nonsense: object) -> None:
    async with board("listen", "listen") as b:
        await b.runs("listen")
        b.selection.apply({"mode": nonsense})
        assert b.selection.mode == "listen"


async def test_mode_that_is_not_configured_polls_and_says_so() -> None:
    async with board("listen", "listen") as b:
        await b.runs("listen")
        b.selection.apply({"mode": "realtime"})
        assert (await b.runs()).why == "realtime is not configured on this worker"


async def test_auto_stays_with_a_listen_that_can_be_trusted() -> None:
    async with board("auto", "listen", "realtime") as b:
        await b.runs("listen")
        b.wakeup.subscribed("listen", grace_s=1.0)
        b.now_s += 100
        b.selection._look.set()
        await anyio.wait_all_tasks_blocked()
        assert b.selection.report()["sources"] == {"listen": "ready"}


async def test_auto_runs_realtime_only_while_listen_receives_nothing() -> None:
    async with board("auto", "listen", "realtime") as b:
        await b.runs("listen")
        b.sources["listen"].error = "there is a pooler"
        b.now_s += 4
        assert (await b.runs("listen", "realtime")).why == "listen: there is a pooler"
        b.wakeup.subscribed("listen", grace_s=1.0)
        b.selection._look.set()
        await anyio.wait_all_tasks_blocked()
        assert b.sources["realtime"].running, "listen has to prove itself first"
        b.now_s += 11
        await b.runs("listen")


async def test_auto_without_realtime_keeps_trying_listen() -> None:
    async with board("auto", "listen") as b:
        await b.runs("listen")
        b.now_s += 100
        b.selection._look.set()
        await anyio.wait_all_tasks_blocked()
        assert b.sources["listen"].running
        assert len(b.log.of(ModeChanged)) == 1


async def test_source_is_started_again_only_after_its_end() -> None:
    async with board("listen", "listen") as b:
        await b.runs("listen")
        for _ in range(5):
            b.selection.apply({"mode": "poll"})
            await anyio.lowlevel.checkpoint()
            b.selection.apply({})
            await anyio.lowlevel.checkpoint()
            assert b.sources["listen"].running <= 1
        await anyio.wait_all_tasks_blocked()
        assert b.sources["listen"].running == 1


async def test_change_of_a_sources_state_is_reported() -> None:
    async with board("listen", "listen") as b:
        await b.runs("listen")
        changed = b.changed
        b.wakeup.subscribed("listen", grace_s=1.0)
        with anyio.fail_after(5):
            await changed.wait()
        assert b.selection.report()["sources"] == {"listen": "ready"}


async def test_change_of_mode_has_the_relay_look() -> None:
    async with board("poll", "listen") as b:
        await b.runs()
        with anyio.fail_after(5):
            assert await b.wakeup.wait(60) == "mode"
