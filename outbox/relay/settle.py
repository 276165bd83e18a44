"""Settling: writing the outcomes of messages to the database.

Batches form by themselves. What accumulates while one statement runs goes into the next. An idle relay settles each
message at once, a busy one hundreds together. While few answers come and more are in flight, it waits a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from outbox.loops.retry import DatabaseRetry
from outbox.model.errors import DatabaseRefused, OutboxError
from outbox.model.events import Buried, Completed, LeaseLost, Released, Retried, Settlement, SettleRefused
from outbox.model.message import LeaseId
from outbox.relay.conclude import BuryAction, ReleaseAction, RetryAction, SettleAction
from outbox.relay.settings import OVERDUE_S

if TYPE_CHECKING:
    from outbox.relay.buffer import Buffer
    from outbox.relay.context import RelayContext

A = TypeVar("A", bound=SettleAction)

_MESSAGE = attrgetter("message")
_GATHER_S, _GATHERINGS = 0.005, 4
"""Answers are gathered for one statement in steps of this length, and in this many steps at most."""
_ENOUGH = 64
"""Answers that are worth a statement."""


class _SettleQueue(Generic[A]):
    """One kind of action: what waits for its statement, the statement, and the report after it."""

    def __init__(
        self, write: Callable[[Sequence[A]], Awaitable[set[LeaseId]]], report: Callable[[list[A], float], None]
    ) -> None:
        self.pending: list[A] = []
        self.write = write
        self.report = report


class Settler:
    """Takes actions synchronously and writes them in batches."""

    def __init__(self, context: RelayContext, buffer: Buffer) -> None:
        store, emit = context.store, context.emit
        self._buffer = buffer
        self._watchdog = context.watchdog
        self._wakeup = context.wakeup
        self._emit = emit
        self._batch = context.settings.batch
        self._database_retry = DatabaseRetry("settle", emit, context.settings.reconnect)
        self._work_came = anyio.Event()
        self._awake = False
        self._closed = False
        self.expect_keys = False
        """Whether messages with a key may come. While none may, their keys are not looked at."""
        self.keys_moved = False
        """Whether messages with a key were settled. Others of their keys may then wait for a claim."""
        self._completes = _SettleQueue[Settlement](store.complete, lambda rows, took_s: emit(Completed(rows, took_s)))
        self._queues: dict[type, _SettleQueue[Any]] = {
            Settlement: self._completes,
            RetryAction: _SettleQueue[RetryAction](
                lambda rows: store.retry([row.retry for row in rows]), self._report_retried
            ),
            BuryAction: _SettleQueue[BuryAction](
                lambda rows: store.bury([row.burial for row in rows]), self._report_buried
            ),
            ReleaseAction: _SettleQueue[ReleaseAction](
                lambda rows: store.release([row.message for row in rows]), self._report_released
            ),
        }

    def settle(self, action: SettleAction) -> None:
        """Write this down soon."""
        self._queues[type(action)].pending.append(action)
        if not self._awake:
            self._wake()

    def close(self) -> None:
        """Nothing more will come. `run` returns when everything is written."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
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
            while any([await self._turn(queue) for queue in self._queues.values()]):
                pass
            if self._closed:
                self._watchdog.forget("settle")
                return

    async def _gather(self) -> None:
        """Wait for more answers while others are in flight: with a slow sink each would have a statement of its own.

        A single message does not wait. Messages with keys do not wait either: others may wait for their settlement.
        """
        for _ in range(_GATHERINGS):
            gathered = len(self._completes.pending)
            if self._closed or self.expect_keys or gathered >= _ENOUGH or gathered >= self._buffer.outstanding:
                return
            await anyio.sleep(_GATHER_S)

    async def _turn(self, queue: _SettleQueue[A]) -> bool:
        """Write one batch of a queue; return False if there was none."""
        if not queue.pending:
            return False
        batch, queue.pending = queue.pending[: self._batch], queue.pending[self._batch :]
        await self._write(queue, batch)
        return True

    async def _write(self, queue: _SettleQueue[A], batch: list[A]) -> None:
        """Write a batch, after any outage. If values are refused, halve the batch to find the row at fault."""
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
        self, queue: _SettleQueue[A], batch: list[A], lost: set[LeaseId], *, certain: bool, took_s: float
    ) -> None:
        """Report what was written and what was not, and count the messages out."""
        if self.expect_keys and any(row.message.key is not None for row in batch):
            self.keys_moved = True
            self._wakeup.nudge("key")  # the next of the key may come
        if lost:
            gone = [row.message for row in batch if row.message.lease in lost]
            self._emit(LeaseLost(gone, certain))
        written = [row for row in batch if row.message.lease not in lost] if lost else batch
        if written:
            queue.report(written, took_s)
        self._buffer.settled(map(_MESSAGE, batch), len(batch))

    async def _refused(self, queue: _SettleQueue[A], batch: list[A], error: DatabaseRefused) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._write(queue, batch[:middle])
            await self._write(queue, batch[middle:])
        else:
            self._emit(SettleRefused(batch[0].message, str(error)))
            self._buffer.settled([batch[0].message], 1)

    def _report_retried(self, rows: list[RetryAction], _took_s: float) -> None:
        self._wakeup.nudge("retry")  # the claimer has to see when they fall due
        for row in rows:
            self._emit(Retried(row.message, row.outcome, row.retry.delay_s, row.retry.counted))

    def _report_buried(self, rows: list[BuryAction], _took_s: float) -> None:
        for row in rows:
            self._emit(Buried(row.message, row.burial.reason, row.outcome))

    def _report_released(self, rows: list[ReleaseAction], _took_s: float) -> None:
        self._wakeup.nudge("release")  # a claim here need not wait for a notification
        for why in {row.why for row in rows}:
            self._emit(Released([row.message for row in rows if row.why == why], why))
