"""Claiming: leasing due messages whenever there is room for them, woken by the doorbell or else by the clock."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.errors import OutboxError
from outbox.events import Claimed, Emit
from outbox.message import Lease, Parcel
from outbox.polling import Polling
from outbox.relay.patience import Patience
from outbox.relay.verdict import is_suspect, quarantine
from outbox.sink import Rejected

if TYPE_CHECKING:
    from outbox.relay.hold import Hold
    from outbox.relay.inbox import Inbox
    from outbox.relay.settings import RelaySettings
    from outbox.relay.settle import Settler
    from outbox.store import Store
    from outbox.wakeup import Wakeup

_SOONEST_S = 0.005
"""The database's clock has moved on while its answer travelled: do not come back a hair too early."""


class Claimer:
    """One loop: hold, room, claim, hand over, wait."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        hold: Hold,
        settler: Settler,
        wakeup: Wakeup,
        emit: Emit,
        settings: RelaySettings,
        worker_id: int,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._hold = hold
        self._settler = settler
        self._wakeup = wakeup
        self._emit = emit
        self._settings = settings
        self._worker_id = worker_id
        self._patience = Patience("claim", emit, settings.reconnect)
        self._polling = Polling(attended_s=settings.poll_interval_s, alone_s=settings.fallback_interval_s)
        self._stopping = False
        self._woken_by: str | None = "start"
        """Who rang before this claim; None when nobody did and the time was up."""

    def stop(self) -> None:
        """Claim nothing any more, however long the loop would have waited."""
        self._stopping = True
        self._hold.open()
        self._inbox.close()
        self._wakeup.nudge("stop")

    async def run(self) -> None:
        """Claim until stopped. Returns between two claims, never with a lease in hand."""
        while not self._stopping:
            await self._hold.passed()
            await self._inbox.wait_for_room()
            limit = self._inbox.room()
            if limit and not self._may_not_claim():
                await self._claim_and_wait(limit)

    def _may_not_claim(self) -> bool:
        """Whether the relay stops or holds, asked anew after every wait."""
        return self._stopping or self._hold.outcome is not None

    async def _claim_and_wait(self, limit: int) -> None:
        """One round: claim, hand over, and wait at the doorbell unless more is due already."""
        lease = await self._claim(limit)
        if lease is None:
            return
        self._learn(lease)
        if lease.messages:
            await self._hand_over(lease)
        self._woken_by = "more"
        if not lease.more:
            await self._wait(lease)

    def _learn(self, lease: Lease) -> None:
        """See from what a claim brought whether whoever woke it was right, or whoever did not should have."""
        if self._woken_by is None and lease.fresh:
            self._wakeup.found_unannounced()
        elif self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            self._polling.answered(found=bool(lease.messages))

    async def _wait(self, lease: Lease) -> None:
        """Wait until there may be something to claim."""
        self._woken_by = await self._wakeup.wait(self._pause_s(lease))
        if self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            await anyio.sleep(self._polling.answer_s())

    async def _claim(self, limit: int) -> Lease | None:
        """Claim once; after a failure wait a little and return None."""
        settings = self._settings
        began_s = monotonic()
        try:
            lease = await self._store.claim(
                limit, lease_s=settings.lease_s, worker_id=self._worker_id, suspect_after=settings.suspect_after
            )
        except OutboxError as error:
            await self._patience.failed(error)
            return None
        self._patience.succeeded()
        self._inbox.more_due = lease.more
        if lease.messages:
            self._emit(Claimed(lease.messages, monotonic() - began_s))
        return lease

    async def _hand_over(self, lease: Lease) -> None:
        """Give the lease's messages to the inbox; a suspect only when it is alone, and until it is settled."""
        parcels = [Parcel(message, lease.claimed_s, lease.expires_s) for message in lease.messages]
        suspect = is_suspect(lease.messages[0], self._settings)
        if suspect:
            await self._inbox.wait_until_empty()
        if self._may_not_claim():
            self._inbox.outstanding += len(parcels)
            self._settler.release(lease.messages, "drain" if self._stopping else "hold")
        elif burial := quarantine(lease.messages[0], self._settings):
            self._inbox.outstanding += 1
            self._settler.bury(burial, Rejected(burial.kind, burial.detail))
        else:
            self._inbox.put(parcels)
        if suspect:
            await self._inbox.wait_until_empty()

    def _pause_s(self, lease: Lease) -> float:
        """How long to wait if nobody rings: as polling goes, or less if a message falls due before."""
        poll_s = self._polling.pause_s(attended=self._wakeup.attended, found=bool(lease.messages))
        if lease.next_due_s is None:
            return poll_s
        return min(poll_s, lease.claimed_s + lease.next_due_s + _SOONEST_S - monotonic())
