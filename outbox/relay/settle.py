"""Settling: writing down what became of messages.

Batches form by themselves. Whatever has accumulated while one statement ran goes into the next: an idle relay settles
each message at once, a busy one hundreds together. While few answers come and more are in flight, it waits a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from outbox.loops.retry import DatabaseRetry
from outbox.model.errors import DatabaseRefused, OutboxError
from outbox.model.events import (
    Buried,
    Completed,
    Emit,
    LeaseLost,
    Released,
    ReleaseReason,
    Retried,
    Settlement,
    SettleRefused,
)
from outbox.model.message import LeaseId, Message
from outbox.model.sink import Failed, Rejected, Retryable
from outbox.relay.settings import OVERDUE_S

if TYPE_CHECKING:
    from outbox.loops.watchdog import Watchdog
    from outbox.relay.buffer import Buffer
    from outbox.relay.settings import RelaySettings
    from outbox.store.messages import Burial, Retry, Store
    from outbox.wakeup.doorbell import Wakeup

T = TypeVar("T")

_GATHER_S, _GATHERINGS = 0.005, 4
"""How long answers are gathered for one statement, at most, in steps of so long."""
_ENOUGH = 64
"""Answers that are worth a statement."""


class _SettleQueue(Generic[T]):
    """One kind of settlement: what waits for its statement, the statement, and how to tell of it afterwards."""

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[set[LeaseId]]],
        message_of: Callable[[T], Message],
        report: Callable[[list[T], float], None],
    ) -> None:
        self.pending: list[T] = []
        self.write = write
        self.message_of = message_of
        self.report = report


class Settler:
    """Takes verdicts synchronously from the delivery slots and writes them in batches."""

    def __init__(
        self, store: Store, buffer: Buffer, wakeup: Wakeup, emit: Emit, settings: RelaySettings, watchdog: Watchdog
    ) -> None:
        self._buffer = buffer
        self._watchdog = watchdog
        self._wakeup = wakeup
        self._emit = emit
        self._batch = settings.batch
        self._database_retry = DatabaseRetry("settle", emit, settings.reconnect)
        self._work_came = anyio.Event()
        self._awake = False
        self._closed = False
        self.expect_keys = False
        """Whether messages with a key may come: whoever has none is not asked for each."""
        self.keys_moved = False
        """Whether messages with a key were settled, upon which others of their keys may wait for a claim."""
        self._completes = _SettleQueue[Settlement](
            store.complete,
            lambda row: row.message,
            lambda rows, took_s: emit(Completed(rows, took_s)),
        )
        self._retries = _SettleQueue[tuple["Retry", Retryable]](
            lambda rows: store.retry([retry for retry, _ in rows]), lambda row: row[0].message, self._report_retried
        )
        self._burials = _SettleQueue[tuple["Burial", Rejected | Failed]](
            lambda rows: store.bury([burial for burial, _ in rows]), lambda row: row[0].message, self._report_buried
        )
        self._releases = _SettleQueue[tuple[Message, ReleaseReason]](
            lambda rows: store.release([message for message, _ in rows]), lambda row: row[0], self._report_released
        )

    def complete(self, settlement: Settlement) -> None:
        """Have a delivered message moved to the history."""
        self._completes.pending.append(settlement)
        self._wake()

    def retry(self, retry: Retry, outcome: Retryable) -> None:
        """Have a message put back for later."""
        self._retries.pending.append((retry, outcome))
        self._wake()

    def bury(self, burial: Burial, outcome: Rejected | Failed) -> None:
        """Have a message moved to the dead letters."""
        self._burials.pending.append((burial, outcome))
        self._wake()

    def release(self, messages: Sequence[Message], why: ReleaseReason) -> None:
        """Have leases given back."""
        if messages:
            self._releases.pending.extend((message, why) for message in messages)
            self._wake()

    def close(self) -> None:
        """Nothing more will come: `run` returns once everything is written."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._work_came.set()

    async def run(self) -> None:
        """Write until closed. Survives any outage of the database; ends by cancellation otherwise."""
        while True:
            self._watchdog.forget("settle")
            await self._work_came.wait()
            self._watchdog.expect("settle", OVERDUE_S)
            await self._gather()
            self._work_came, self._awake = anyio.Event(), False
            busy = True
            while busy:
                busy = await self._turn(self._completes)
                busy = await self._turn(self._retries) or busy
                busy = await self._turn(self._burials) or busy
                busy = await self._turn(self._releases) or busy
            if self._closed:
                self._watchdog.forget("settle")
                return

    async def _gather(self) -> None:
        """Let more answers come in while others are in flight: of a slow sink each would have a statement of its own.

        Whoever is alone does not wait, nor do messages with keys, of which others may wait for the settlement.
        """
        for _ in range(_GATHERINGS):
            gathered = len(self._completes.pending)
            if self._closed or self.expect_keys or gathered >= _ENOUGH or gathered >= self._buffer.outstanding:
                return
            await anyio.sleep(_GATHER_S)

    async def _turn(self, queue: _SettleQueue[T]) -> bool:
        """Write one batch of a queue; return False if there was none."""
        if not queue.pending:
            return False
        batch, queue.pending = queue.pending[: self._batch], queue.pending[self._batch :]
        await self._write(queue, batch)
        return True

    async def _write(self, queue: _SettleQueue[T], batch: list[T]) -> None:
        """Write a batch, waiting out any outage; halve one whose values are refused, to find the row at fault."""
        certain = True
        while True:
            self._watchdog.expect("settle", OVERDUE_S)
            began_s = monotonic()
            try:
                lost = await queue.write(batch)
            except OutboxError as error:
                if isinstance(error, DatabaseRefused) and error.blames_values:
                    await self._refused(queue, batch, error)
                    return
                certain = False
                await self._database_retry.failed(error)
            else:
                self._database_retry.succeeded()
                self._report(queue, batch, lost, certain=certain, took_s=monotonic() - began_s)
                return

    def _report(
        self, queue: _SettleQueue[T], batch: list[T], lost: set[LeaseId], *, certain: bool, took_s: float
    ) -> None:
        """Tell what was written and what was not, and count the deliveries out."""
        if self.expect_keys and any(queue.message_of(row).key is not None for row in batch):
            self.keys_moved = True
            self._wakeup.nudge("key")  # the next of the key may come
        if lost:
            gone = [queue.message_of(row) for row in batch if queue.message_of(row).lease in lost]
            self._emit(LeaseLost(gone, certain))
        written = [row for row in batch if queue.message_of(row).lease not in lost] if lost else batch
        if written:
            queue.report(written, took_s)
        self._buffer.settled(map(queue.message_of, batch), len(batch))

    async def _refused(self, queue: _SettleQueue[T], batch: list[T], error: DatabaseRefused) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._write(queue, batch[:middle])
            await self._write(queue, batch[middle:])
        else:
            self._emit(SettleRefused(queue.message_of(batch[0]), str(error)))
            self._buffer.settled([queue.message_of(batch[0])], 1)

    def _report_retried(self, rows: list[tuple[Retry, Retryable]], _took_s: float) -> None:
        self._wakeup.nudge("retry")  # the claimer must learn when they fall due
        for retry, outcome in rows:
            self._emit(Retried(retry.message, outcome, retry.delay_s, retry.counted))

    def _report_buried(self, rows: list[tuple[Burial, Rejected | Failed]], _took_s: float) -> None:
        for burial, outcome in rows:
            self._emit(Buried(burial.message, burial.reason, outcome))

    def _report_released(self, rows: list[tuple[Message, ReleaseReason]], _took_s: float) -> None:
        self._wakeup.nudge("release")  # whoever may claim now need not wait for a notification
        for why in {why for _, why in rows}:
            self._emit(Released([message for message, reason in rows if reason == why], why))
