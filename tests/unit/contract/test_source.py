"""What every wake-up source keeps, whether or not it can reach what it listens to."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from outbox.loops.backoff import Backoff
from outbox.model.events import SourceLost, SourceReady
from outbox.postgres.pool import open_pool
from outbox.store.messages import Store
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.listen import ListenSource
from outbox.wakeup.realtime import RealtimeSettings, RealtimeSource
from outbox.wakeup.selection import Source
from outbox.wakeup.source import SupervisedSource
from outbox.wakeup.token import Token
from tests.support.event_log import EventLog
from tests.support.eventually import eventually
from tests.support.realtime_server import RealtimeServer, jwt

pytestmark = pytest.mark.timeout(60)
NO_SERVER = {"listen": "postgresql://postgres@127.0.0.1:1/x", "realtime": "http://127.0.0.1:1"}
Make = Callable[[Wakeup, EventLog, bool], Source]


@pytest.fixture(params=["listen", "realtime"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make(name: str, supabase: str, server: RealtimeServer):  # type: ignore[no-untyped-def]
    """Makes the source, on an address that it can reach or on one without an answer."""
    async with open_pool(supabase, size=1, application_name="test", statement_timeout_s=10) as pool:

        def build(wakeup: Wakeup, log: EventLog, reachable: bool) -> Source:
            if name == "listen":
                dsn = supabase if reachable else NO_SERVER[name]
                return ListenSource(
                    dsn,
                    "outbox",
                    Store(pool, "outbox"),
                    wakeup,
                    log,
                    on_control=lambda: None,
                    reconnect=Backoff(0.05, 0.1),
                )
            url = server.url if reachable else NO_SERVER[name]
            key = jwt("service_role")
            settings = RealtimeSettings(url, key, "postgres_changes", "outbox")
            return RealtimeSource(settings, Token(None, None, key), wakeup, log)

        yield build


async def test_ready_source_is_subscribed_has_no_error_and_has_the_relay_look(name: str, make: Make) -> None:
    log = EventLog()
    wakeup = Wakeup(log)
    source = make(wakeup, log, True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run)
        assert (await log.wait_for(SourceReady)).source == name
        assert wakeup.trusts(name)
        assert source.error is None
        assert await wakeup.wait(5.0) == name
        tasks.cancel_scope.cancel()


async def test_cancelled_source_is_unsubscribed(name: str, make: Make) -> None:
    log = EventLog()
    wakeup = Wakeup(log)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make(wakeup, log, True).run)
        await log.wait_for(SourceReady)
        tasks.cancel_scope.cancel()
    assert not wakeup.has(name)
    assert not wakeup.has_trusted_source


async def test_source_without_an_answer_says_why_once_and_goes_on_trying(name: str, make: Make) -> None:
    log = EventLog()
    wakeup = Wakeup(log)
    source = make(wakeup, log, False)
    assert isinstance(source, SupervisedSource)
    tries, session = 0, source._session

    async def counted() -> None:
        nonlocal tries
        tries += 1
        await session()

    async def tried() -> int:
        return tries

    source._session = counted  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run)
        lost = await log.wait_for(SourceLost)
        assert lost.source == name
        assert lost.error == source.error
        assert not wakeup.has(name)
        await eventually(tried, lambda n: n >= 3)  # several tries, all for the same reason
        assert len(log.of(SourceLost)) == 1
        tasks.cancel_scope.cancel()
