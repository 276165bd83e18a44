"""Claiming: leasing due messages whenever there is room for them, woken by the doorbell or else by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.errors import OutboxError
from outbox.events import Claimed, Emit
from outbox.message import Lease, Message, Parcel
from outbox.polling import Polling
from outbox.relay.patience import Patience
from outbox.relay.verdict import expire, is_suspect, quarantine
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
        self._gated = False
        """Whether messages stood at the gates a round ago: then they get half of the room."""
        self._lane = ""

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
                await self._round(limit)

    def _may_not_claim(self) -> bool:
        """Whether the relay stops or holds, asked anew after every wait."""
        return self._stopping or self._hold.outcome is not None

    async def _round(self, limit: int) -> None:
        """Claim, at the gates too if messages stand there, and wait at the doorbell unless more is due already."""
        at_gates = self._gated
        lease = await self._claim(self._store.claim, -(-limit // 2) if at_gates else limit)
        if lease is None:
            return
        leases, self._gated = [lease], lease.gated
        if lease.gated and not self._may_not_claim():
            claim = partial(self._store.claim_gated, lane=self._lane)
            gated = await self._claim(claim, max(1, limit - len(lease.messages)))
            if gated is None:
                return
            leases.append(gated)
            self._lane = gated.lane
            self._settler.expect_keys = True
        self._learn(leases)
        self._inbox.more_due = any(lease.more for lease in leases)
        self._woken_by = "more"
        if not self._inbox.more_due:
            await self._wait(leases)

    def _learn(self, leases: list[Lease]) -> None:
        """See from what a round brought whether whoever woke it was right, or whoever did not should have."""
        if self._woken_by is None and any(lease.fresh for lease in leases):
            self._wakeup.found_unannounced()
        elif self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            # Whoever found messages at the gates was in time, also if they have to wait there.
            self._polling.answered(found=any(lease.messages or lease.gated for lease in leases))

    async def _wait(self, leases: list[Lease]) -> None:
        """Wait until there may be something to claim."""
        self._woken_by = await self._wakeup.wait(self._pause_s(leases))
        if self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            await anyio.sleep(self._polling.answer_s())

    async def _claim(self, claim: Callable[..., Awaitable[Lease]], limit: int) -> Lease | None:
        """Claim once and hand over what came; after a failure wait a little and return None."""
        settings = self._settings
        began_s = monotonic()
        try:
            lease = await claim(
                limit, lease_s=settings.lease_s, worker_id=self._worker_id, suspect_after=settings.suspect_after
            )
        except OutboxError as error:
            await self._patience.failed(error)
            return None
        self._patience.succeeded()
        if lease.messages:
            self._emit(Claimed(lease.messages, monotonic() - began_s))
            self._inbox.more_due = lease.more
            await self._hand_over(lease)
        return lease

    async def _hand_over(self, lease: Lease) -> None:
        """Give the lease's messages to the inbox; a suspect only when it is alone, and until it is settled."""
        suspect = is_suspect(lease.messages[0], self._settings)
        if suspect:
            await self._inbox.wait_until_empty()
        if self._may_not_claim():
            self._inbox.outstanding += len(lease.messages)
            self._settler.release(lease.messages, "drain" if self._stopping else "hold")
            return
        self._inbox.put([Parcel(message, lease.claimed_s, lease.expires_s) for message in self._living(lease.messages)])
        if suspect:
            await self._inbox.wait_until_empty()

    def _living(self, messages: list[Message]) -> list[Message]:
        """Bury what has expired, and whatever has killed too many workers; return the others."""
        suspect = is_suspect(messages[0], self._settings)
        if not suspect and not any(message.expired for message in messages):
            return messages
        living = []
        for message in messages:
            burial = expire(message) or quarantine(message, self._settings)
            if burial is None:
                living.append(message)
            else:
                self._inbox.outstanding += 1
                self._settler.bury(burial, Rejected(burial.kind, burial.detail))
        return living

    def _pause_s(self, leases: list[Lease]) -> float:
        """How long to wait if nobody rings: as polling goes, or less if a message falls due before."""
        found = any(lease.messages for lease in leases)
        pause_s = self._polling.pause_s(attended=self._wakeup.attended, found=found)
        for lease in leases:
            if lease.next_due_s is not None:
                pause_s = min(pause_s, lease.claimed_s + lease.next_due_s + _SOONEST_S - monotonic())
        return max(0.0, pause_s)
