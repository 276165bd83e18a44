"""A source outlives every fault of its sessions."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from outbox.loops.backoff import Backoff
from outbox.model.errors import ConfigurationError, OutboxError
from outbox.model.events import SourceLost, SourceReady
from outbox.wakeup.doorbell import Wakeup
from outbox.wakeup.source import SupervisedSource
from outbox.wakeup.token import Token
from tests.support.event_log import EventLog


class Unlucky(SupervisedSource):
    """Its sessions end as the list says; the one after the last stays."""

    name, grace_s, steady_s = "unlucky", 1.0, 10.0

    def __init__(self, wakeup: Wakeup, log: EventLog, *ends: BaseException) -> None:
        super().__init__(wakeup, log)
        self._ends = list(ends)

    def _pace(self, error: OutboxError) -> Backoff:
        return Backoff(base_s=0.001, cap_s=0.001)

    async def _session(self) -> None:
        if self._ends:
            raise self._ends.pop(0)
        self._ready()
        await anyio.sleep_forever()


async def test_source_goes_on_after_unexpected_errors_and_loose_cancellations(anyio_backend: object) -> None:
    log = EventLog()
    wakeup = Wakeup(log)
    source = Unlucky(
        wakeup, log, ValueError("a \udc80 text"), anyio.get_cancelled_exc_class()(), ImportError("no websockets")
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run)
        await log.wait_for(SourceReady)
        reasons = [event.error for event in log.of(SourceLost)]
        tasks.cancel_scope.cancel()
    assert reasons == [
        "unlucky: ValueError: a ? text",
        "unlucky: something inside was cancelled",
        "unlucky: ImportError: no websockets",
    ]
    assert not wakeup.has("unlucky")


async def test_token_file_that_is_no_text_is_named(tmp_path: Path, anyio_backend: object) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="OUTBOX_REALTIME_TOKEN_FILE: .*utf-8"):
        await Token(None, str(file), "").read()
