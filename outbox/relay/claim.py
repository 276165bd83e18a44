"""Claiming: leasing due messages when there is room for them, after a notification or by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.retry import DatabaseRetry
from outbox.model.errors import OutboxError
from outbox.model.events import Claimed, ReleaseReason
from outbox.model.message import FRONT, ClaimedBatch, Message, Outlook, Place
from outbox.model.sink import Rejected
from outbox.relay.claim_size import ClaimSize
from outbox.relay.conclude import BuryAction, released
from outbox.relay.polling import Polling
from outbox.relay.settings import OVERDUE_S
from outbox.relay.verdict import expire, is_suspect, quarantine

if TYPE_CHECKING:
    from outbox.relay.buffer import Buffer
    from outbox.relay.context import RelayContext
    from outbox.relay.hold import Hold
    from outbox.relay.settle import Settler

_DELIVERIES = attrgetter("deliveries")
_EXPIRED = attrgetter("expired")

_SOONEST_S = 0.005
"""The database's clock moved on while its answer travelled: do not come back a little too early."""
_LOCKED_S = 0.02
"""What is due and was not claimed is locked by a transaction that ends very soon."""
_HELD_S = 0.5
"""How often to look while other workers hold messages, so that they are rescued soon after a worker dies."""
_AHEAD_S = 0.25
"""How long claims continue behind the last one before one begins at the front again, where messages may be new."""
_RESTRICTED_S = 0.1
"""How long claims of restricted messages follow each other before a claim of the others."""
_AHEAD_RATIO, _AHEAD_MOST_S = 10, 5.0
"""The same as a multiple of the time that the statements at the front took, and its bound. They take long while vacuum
cannot remove dead rows."""


class Claimer:
    """One loop: hold, room, claim, hand over, look around, wait."""

    def __init__(self, context: RelayContext, buffer: Buffer, hold: Hold, settler: Settler) -> None:
        self._store = context.store
        self._wakeup = context.wakeup
        self._emit = context.emit
        self._settings = settings = context.settings
        self._watchdog = context.watchdog
        self._worker_id = context.worker_id
        self._on_other_workers_busy = context.on_other_workers_busy
        self._buffer = buffer
        self._hold = hold
        self._settler = settler
        self._database_retry = DatabaseRetry("claim", self._emit, settings.reconnect)
        self._claim_size = ClaimSize(buffer)
        self._polling = Polling(
            poll_interval_s=settings.poll_interval_s, fallback_interval_s=settings.fallback_interval_s
        )
        self._stopping = False
        self._woken_by: str | None = "start"
        """What woke this claim; None when the time was up."""
        self._place: Place = FRONT
        """Where the next claim begins: behind the last one while claims come back full."""
        self._ahead_until_s = 0.0
        self._ruled = False
        self._restricted = False
        """Whether restricted messages waited at the last look: then they get half of the room."""
        self._lane = ""
        self._after_suspect = False
        """Whether the last claim brought a suspect: then the next one takes a single message."""

    def stop(self) -> None:
        """Claim nothing more, and end the present wait."""
        self._stopping = True
        self._hold.open()
        self._buffer.close()
        self._wakeup.nudge("stop")

    async def run(self) -> None:
        """Claim until stopped. Returns between two claims, never with a lease in hand."""
        while not self._stopping:
            self._watchdog.forget("claim")  # probing, delivering and settling have promises of their own
            await self._hold.passed()
            await self._buffer.wait_for_room()
            limit = self._claim_size.limit()
            if limit and not self._must_not_claim():
                self._watchdog.expect("claim", OVERDUE_S)
                await self._round(limit)
        self._watchdog.forget("claim")

    def _must_not_claim(self) -> bool:
        """Whether the relay stops or holds. To be checked again after every wait."""
        return self._stopping or self._hold.outcome is not None

    async def _round(self, limit: int) -> None:
        """Claim; if that was all, or it is time, look and claim restricted messages; wait unless more is due."""
        began_s = monotonic()
        if self._woken_by is None:  # the time was up: probably there is nothing
            outlook = await self._look()
            if outlook is None:
                return
            if not outlook.due and not outlook.restricted:
                await self._wait([], outlook)
                return
        batch = await self._claim_plain(limit)
        if batch is None or self._claims_again_at_once(batch):
            return
        known_rules, looked_s = self._ruled, monotonic()
        outlook = await self._look()
        if outlook is None:
            return
        took_s = batch.claimed_s - began_s + outlook.seen_s - looked_s
        self._ahead_until_s = outlook.seen_s + min(max(_AHEAD_S, _AHEAD_RATIO * took_s), _AHEAD_MOST_S)
        batches = [batch]
        if outlook.restricted and not self._must_not_claim():
            restricted = await self._claim_restricted(max(1, limit - len(batch.messages)))
            if not batch.messages:
                restricted = await self._claim_more_restricted(restricted)
            if restricted is None:
                return
            batches.append(restricted)
        self._judge_sources(batches, outlook)
        can_be_had = bool(batch.messages) or outlook.ruled != known_rules
        self._buffer.more_due = any(batch.more for batch in batches) or (outlook.due and can_be_had)
        if self._buffer.more_due:
            self._woken_by = "more"
        else:
            await self._wait(batches, outlook)

    def _claims_again_at_once(self, batch: ClaimedBatch) -> bool:
        """Whether the next claim follows at once: behind a full one, or at the front after the end was reached."""
        was_at_front = self._place == FRONT
        if batch.more and monotonic() < self._ahead_until_s and not self._after_suspect:
            last = batch.messages[-1]
            self._place = last.due_s, last.seq
        else:
            self._place = FRONT
            if batch.more or was_at_front:
                return False
        self._woken_by = "more"
        return True

    async def _look(self) -> Outlook | None:
        """Look around; after a failure wait a little and return None."""
        try:
            outlook = await self._store.outlook(self._worker_id)
        except OutboxError as error:
            await self._database_retry.failed(error)
            return None
        self._database_retry.succeeded()
        self._ruled, self._restricted = outlook.ruled, outlook.restricted
        if outlook.held:
            self._on_other_workers_busy()
        return outlook

    def _judge_sources(self, batches: list[ClaimedBatch], outlook: Outlook) -> None:
        """Judge the sources: a poll may have found new messages, or a notification none."""
        if self._woken_by is None and any(message.is_fresh for batch in batches[:1] for message in batch.messages):
            self._wakeup.missed_notification()
        elif self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            # If it found restricted messages, it was in time, even if they must wait.
            self._polling.note_wakeup(found=outlook.restricted or any(batch.messages for batch in batches))

    async def _wait(self, batches: list[ClaimedBatch], outlook: Outlook) -> None:
        """Wait until there may be something to claim."""
        pause_s = self._pause_s(batches, outlook)
        self._watchdog.expect("claim", pause_s + OVERDUE_S)
        self._woken_by = await self._wakeup.wait(pause_s)
        if self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            await anyio.sleep(self._polling.crowd_delay_s())

    async def _claim_plain(self, limit: int) -> ClaimedBatch | None:
        """Claim messages without restrictions."""
        if self._after_suspect:
            limit = 1
        elif self._restricted:
            limit = -(-limit // 2)
        claim = self._store.claim_ruled if self._ruled else self._store.claim
        return await self._claim(partial(claim, limit, after=self._place))

    async def _claim_restricted(self, limit: int) -> ClaimedBatch | None:
        """Claim restricted messages."""
        suspect_after, series = self._settings.suspect_after, self._settings.series
        claim = partial(
            self._store.claim_restricted, limit, suspect_after=suspect_after, lane=self._lane, series=series
        )
        batch = await self._claim(claim)
        if batch is not None:
            self._lane = batch.lane or ""
            self._settler.expect_keys = True
        return batch

    async def _claim_more_restricted(self, batch: ClaimedBatch | None) -> ClaimedBatch | None:
        """Claim restricted messages again for a moment, while more are due; return the last batch."""
        until_s = monotonic() + _RESTRICTED_S
        while batch is not None and batch.more and batch.messages and monotonic() < until_s:
            limit = self._claim_size.limit()
            if not limit or self._after_suspect or self._must_not_claim():
                break
            self._watchdog.expect("claim", OVERDUE_S)
            batch = await self._claim_restricted(limit)
        return batch

    async def _claim(self, claim: Callable[..., Awaitable[ClaimedBatch]]) -> ClaimedBatch | None:
        """Claim once and hand over what came; after a failure wait a little and return None."""
        began_s, max_bytes = monotonic(), self._claim_size.max_bytes()
        try:
            batch = await claim(lease_s=self._settings.lease_s, worker_id=self._worker_id, max_bytes=max_bytes)
        except OutboxError as error:
            self._claim_size.failed()
            await self._database_retry.failed(error)
            return None
        self._database_retry.succeeded()
        self._claim_size.claimed(batch)
        self._buffer.more_due = batch.more
        if batch.messages:
            self._emit(Claimed(batch.messages, monotonic() - began_s))
            await self._hand_over(batch)
        return batch

    async def _hand_over(self, batch: ClaimedBatch) -> None:
        """Give the messages to the buffer. A suspect waits until it is alone, and others wait until it is settled."""
        messages = self._isolate_suspect(batch.messages)
        suspect = is_suspect(messages[0], self._settings)
        if suspect:
            await self._empty()
        if self._must_not_claim():
            self._give_back(messages, "drain" if self._stopping else "hold")
            return
        self._buffer.put(self._bury_hopeless(messages), batch)
        if suspect:
            await self._empty()

    async def _empty(self) -> None:
        """Wait for what is outstanding to be settled, for as long as that takes."""
        self._watchdog.forget("claim")
        await self._buffer.wait_until_empty()
        self._watchdog.expect("claim", OVERDUE_S)

    def _isolate_suspect(self, messages: list[Message]) -> list[Message]:
        """Give back messages that were claimed with a suspect, and a suspect that is not first; return the others."""
        self._after_suspect = max(map(_DELIVERIES, messages)) > self._settings.suspect_after
        if not self._after_suspect:
            return messages
        first = next(number for number, message in enumerate(messages) if is_suspect(message, self._settings))
        self._give_back(messages[max(1, first) :], "suspect")
        return messages[: max(1, first)]

    def _give_back(self, messages: list[Message], why: ReleaseReason) -> None:
        self._buffer.count_in(messages)
        for action in released(messages, why):
            self._settler.settle(action)

    def _bury_hopeless(self, messages: list[Message]) -> list[Message]:
        """Bury messages that have expired or have killed too many workers; return the others."""
        if not self._after_suspect and not any(map(_EXPIRED, messages)):
            return messages
        living = []
        for message in messages:
            burial = expire(message) or quarantine(message, self._settings)
            if burial is None:
                living.append(message)
            else:
                self._buffer.count_in([message])
                self._settler.settle(BuryAction(message, burial, Rejected(burial.kind, burial.detail)))
        return living

    def _pause_s(self, batches: list[ClaimedBatch], outlook: Outlook) -> float:
        """How long to wait for a notification: the polling interval, or less if a message falls due before."""
        found = any(batch.messages for batch in batches)
        pause_s = self._polling.pause_s(has_trusted_source=self._wakeup.has_trusted_source, found=found)
        if outlook.due:
            pause_s = min(pause_s, _LOCKED_S)
        if outlook.held:
            pause_s = min(pause_s, _HELD_S)
        seen = [(outlook.seen_s, outlook.next_due_s), *((batch.claimed_s, batch.next_due_s) for batch in batches)]
        for seen_s, next_due_s in seen:
            if next_due_s is not None:
                pause_s = min(pause_s, seen_s + next_due_s + _SOONEST_S - monotonic())
        return max(0.0, pause_s)
