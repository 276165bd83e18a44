"""Claiming: leasing due messages whenever there is room for them, woken by the doorbell or else by the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING

import anyio

from outbox.loops.retry import Patience
from outbox.model.errors import OutboxError
from outbox.model.events import Claimed, Emit, Why
from outbox.model.message import FRONT, Lease, Message, Outlook, Place
from outbox.model.sink import Rejected
from outbox.relay.polling import Polling
from outbox.relay.portion import Portion
from outbox.relay.settings import OVERDUE_S
from outbox.relay.verdict import expire, is_suspect, quarantine

if TYPE_CHECKING:
    from outbox.loops.watchdog import Pulse
    from outbox.relay.buffer import Inbox
    from outbox.relay.hold import Hold
    from outbox.relay.settings import RelaySettings
    from outbox.relay.settle import Settler
    from outbox.store.messages import Store
    from outbox.wakeup.doorbell import Wakeup

_DELIVERIES = attrgetter("deliveries")
_EXPIRED = attrgetter("expired")

_SOONEST_S = 0.005
"""The database's clock has moved on while its answer travelled: do not come back a hair too early."""
_LOCKED_S = 0.02
"""What is due and cannot be had is locked by somebody who will be done with it very soon."""
_HELD_S = 0.5
"""How often to look while other workers hold messages, which are to be rescued soon after one of them dies."""
_AHEAD_S = 0.25
"""How long claims go on one behind the other before one begins at the front again, where something may have come in."""
_GATES_S = 0.1
"""How long claims at the gates follow one another before one looks whether anything came that passes none."""
_AHEAD_RATIO, _AHEAD_MOST_S = 10, 5.0
"""The same as a multiple of what the statements at the front took, which is much where dead rows cannot be vacuumed
away, and its bound."""


class Claimer:
    """One loop: hold, room, claim, hand over, look around, wait."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        hold: Hold,
        settler: Settler,
        wakeup: Wakeup,
        emit: Emit,
        settings: RelaySettings,
        pulse: Pulse,
        worker_id: int,
        on_held: Callable[[], None],
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._hold = hold
        self._settler = settler
        self._wakeup = wakeup
        self._emit = emit
        self._settings = settings
        self._pulse = pulse
        self._worker_id = worker_id
        self._on_held = on_held
        self._patience = Patience("claim", emit, settings.reconnect)
        self._portion = Portion(inbox)
        self._polling = Polling(attended_s=settings.poll_interval_s, alone_s=settings.fallback_interval_s)
        self._stopping = False
        self._woken_by: str | None = "start"
        """Who rang before this claim; None when nobody did and the time was up."""
        self._place: Place = FRONT
        """Where the next claim begins: behind the last one while claims come back full."""
        self._ahead_until_s = 0.0
        self._ruled = False
        self._gated = False
        """Whether messages stood at the gates at the last look around: then they get half of the room."""
        self._lane = ""
        self._wary = False
        """Whether the last claim met a suspect: then the next one takes a single message."""

    def stop(self) -> None:
        """Claim nothing any more, however long the loop would have waited."""
        self._stopping = True
        self._hold.open()
        self._inbox.close()
        self._wakeup.nudge("stop")

    async def run(self) -> None:
        """Claim until stopped. Returns between two claims, never with a lease in hand."""
        while not self._stopping:
            self._pulse.forget("claim")  # who probes, delivers or settles has promises of their own
            await self._hold.passed()
            await self._inbox.wait_for_room()
            limit = self._portion.limit()
            if limit and not self._may_not_claim():
                self._pulse.expect("claim", OVERDUE_S)
                await self._round(limit)
        self._pulse.forget("claim")

    def _may_not_claim(self) -> bool:
        """Whether the relay stops or holds, asked anew after every wait."""
        return self._stopping or self._hold.outcome is not None

    async def _round(self, limit: int) -> None:
        """Claim; when that was all, or it is time, look around and claim at the gates; wait unless more is due."""
        began_s = monotonic()
        if self._woken_by is None:  # nobody rang: probably there is nothing
            outlook = await self._look()
            if outlook is None:
                return
            if not outlook.due and not outlook.gated:
                await self._wait([], outlook)
                return
        lease = await self._claim_plain(limit)
        if lease is None or self._goes_on(lease):
            return
        known_rules, looked_s = self._ruled, monotonic()
        outlook = await self._look()
        if outlook is None:
            return
        took_s = lease.claimed_s - began_s + outlook.seen_s - looked_s
        self._ahead_until_s = outlook.seen_s + min(max(_AHEAD_S, _AHEAD_RATIO * took_s), _AHEAD_MOST_S)
        leases = [lease]
        if outlook.gated and not self._may_not_claim():
            gated = await self._claim_gated(max(1, limit - len(lease.messages)))
            if not lease.messages:
                gated = await self._go_on_at_the_gates(gated)
            if gated is None:
                return
            leases.append(gated)
        self._learn(leases, outlook)
        can_be_had = bool(lease.messages) or outlook.ruled != known_rules
        self._inbox.more_due = any(lease.more for lease in leases) or (outlook.due and can_be_had)
        if self._inbox.more_due:
            self._woken_by = "more"
        else:
            await self._wait(leases, outlook)

    def _goes_on(self, lease: Lease) -> bool:
        """Whether the next claim follows at once: behind a full one, or at the front after the end was reached."""
        was_at_front = self._place == FRONT
        if lease.more and monotonic() < self._ahead_until_s and not self._wary:
            last = lease.messages[-1]
            self._place = last.due_s, last.seq
        else:
            self._place = FRONT
            if lease.more or was_at_front:
                return False
        self._woken_by = "more"
        return True

    async def _look(self) -> Outlook | None:
        """Look around; after a failure wait a little and return None."""
        try:
            outlook = await self._store.outlook(self._worker_id)
        except OutboxError as error:
            await self._patience.failed(error)
            return None
        self._patience.succeeded()
        self._ruled, self._gated = outlook.ruled, outlook.gated
        if outlook.held:
            self._on_held()
        return outlook

    def _learn(self, leases: list[Lease], outlook: Outlook) -> None:
        """See from what a round brought whether whoever woke it was right, or whoever did not should have."""
        if self._woken_by is None and any(message.is_fresh for lease in leases[:1] for message in lease.messages):
            self._wakeup.found_unannounced()
        elif self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            # Whoever found messages at the gates was in time, also if they have to wait there.
            self._polling.answered(found=outlook.gated or any(lease.messages for lease in leases))

    async def _wait(self, leases: list[Lease], outlook: Outlook) -> None:
        """Wait until there may be something to claim."""
        pause_s = self._pause_s(leases, outlook)
        self._pulse.expect("claim", pause_s + OVERDUE_S)
        self._woken_by = await self._wakeup.wait(pause_s)
        if self._woken_by is not None and self._wakeup.trusts(self._woken_by):
            await anyio.sleep(self._polling.answer_s())

    async def _claim_plain(self, limit: int) -> Lease | None:
        """Claim what passes no gate."""
        if self._wary:
            limit = 1
        elif self._gated:
            limit = -(-limit // 2)
        claim = self._store.claim_ruled if self._ruled else self._store.claim
        return await self._claim(partial(claim, limit, after=self._place))

    async def _claim_gated(self, limit: int) -> Lease | None:
        """Claim at the gates."""
        suspect_after, series = self._settings.suspect_after, self._settings.series
        claim = partial(self._store.claim_gated, limit, suspect_after=suspect_after, lane=self._lane, series=series)
        lease = await self._claim(claim)
        if lease is not None:
            self._lane = lease.lane or ""
            self._settler.expect_keys = True
        return lease

    async def _go_on_at_the_gates(self, lease: Lease | None) -> Lease | None:
        """Claim there again and again, for a moment, while nothing else waits; return the last lease."""
        until_s = monotonic() + _GATES_S
        while lease is not None and lease.more and lease.messages and monotonic() < until_s:
            limit = self._portion.limit()
            if not limit or self._wary or self._may_not_claim():
                break
            self._pulse.expect("claim", OVERDUE_S)
            lease = await self._claim_gated(limit)
        return lease

    async def _claim(self, claim: Callable[..., Awaitable[Lease]]) -> Lease | None:
        """Claim once and hand over what came; after a failure wait a little and return None."""
        began_s, max_bytes = monotonic(), self._portion.max_bytes()
        try:
            lease = await claim(lease_s=self._settings.lease_s, worker_id=self._worker_id, max_bytes=max_bytes)
        except OutboxError as error:
            self._portion.failed()
            await self._patience.failed(error)
            return None
        self._patience.succeeded()
        self._portion.came(lease)
        self._inbox.more_due = lease.more
        if lease.messages:
            self._emit(Claimed(lease.messages, monotonic() - began_s))
            await self._hand_over(lease)
        return lease

    async def _hand_over(self, lease: Lease) -> None:
        """Give the lease's messages to the inbox; a suspect only when it is alone, and until it is settled."""
        messages = self._without_company(lease.messages)
        suspect = is_suspect(messages[0], self._settings)
        if suspect:
            await self._empty()
        if self._may_not_claim():
            self._give_back(messages, "drain" if self._stopping else "hold")
            return
        self._inbox.put(self._living(messages), lease)
        if suspect:
            await self._empty()

    async def _empty(self) -> None:
        """Wait for what is outstanding to be settled, for as long as that takes."""
        self._pulse.forget("claim")
        await self._inbox.wait_until_empty()
        self._pulse.expect("claim", OVERDUE_S)

    def _without_company(self, messages: list[Message]) -> list[Message]:
        """Give back whatever was claimed with a suspect, and the suspect if it is not the first; return the others."""
        self._wary = max(map(_DELIVERIES, messages)) > self._settings.suspect_after
        if not self._wary:
            return messages
        first = next(number for number, message in enumerate(messages) if is_suspect(message, self._settings))
        self._give_back(messages[max(1, first) :], "suspect")
        return messages[: max(1, first)]

    def _give_back(self, messages: list[Message], why: Why) -> None:
        self._inbox.count_in(messages)
        self._settler.release(messages, why)

    def _living(self, messages: list[Message]) -> list[Message]:
        """Bury what has expired, and whatever has killed too many workers; return the others."""
        if not self._wary and not any(map(_EXPIRED, messages)):
            return messages
        living = []
        for message in messages:
            burial = expire(message) or quarantine(message, self._settings)
            if burial is None:
                living.append(message)
            else:
                self._inbox.count_in([message])
                self._settler.bury(burial, Rejected(burial.kind, burial.detail))
        return living

    def _pause_s(self, leases: list[Lease], outlook: Outlook) -> float:
        """How long to wait if nobody rings: as polling goes, or less if a message falls due before."""
        found = any(lease.messages for lease in leases)
        pause_s = self._polling.pause_s(attended=self._wakeup.attended, found=found)
        if outlook.due:
            pause_s = min(pause_s, _LOCKED_S)
        if outlook.held:
            pause_s = min(pause_s, _HELD_S)
        seen = [(outlook.seen_s, outlook.next_due_s), *((lease.claimed_s, lease.next_due_s) for lease in leases)]
        for seen_s, next_due_s in seen:
            if next_due_s is not None:
                pause_s = min(pause_s, seen_s + next_due_s + _SOONEST_S - monotonic())
        return max(0.0, pause_s)
