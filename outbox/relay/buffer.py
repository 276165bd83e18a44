"""Where claimed messages wait for a free delivery slot, and idle slots wait for messages.

Everything that changes state here is synchronous. The buffer also knows how far ahead of the deliveries it pays to
claim: twice as far whenever the slots ran dry, less far when a message has waited too long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, repeat
from operator import attrgetter

import anyio

from outbox.model.message import ClaimedBatch, Delivery, Message

_LONG_WAIT_S = 2.0
"""A message that waited longer than this for its slot was claimed too early."""


_DELIVERY: Callable[[tuple[Message, float, float, Sequence[Message]]], Delivery] = partial(tuple.__new__, Delivery)
"""What `Delivery._make` does, without a Python frame for each of many messages."""
_LARGE = attrgetter("large_bytes")
_TENANT = attrgetter("message.tenant")


def _series(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The first message of each key and those that are alone; and beside each, what follows it in the same key."""
    firsts: list[Message] = []
    rests: list[list[Message]] = []
    by_key: dict[str, list[Message]] = {}
    for message in messages:
        if message.key is not None and message.key in by_key:
            by_key[message.key].append(message)
            continue
        firsts.append(message)
        rests.append([])
        if message.key is not None:
            by_key[message.key] = rests[-1]
    return firsts, rests


class _FairQueue:
    """Deliveries in order of arrival, except that tenants take turns."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str | None, deque[Delivery]] = OrderedDict()
        self._next: deque[Delivery] = deque()
        """The line of the tenant whose turn it is; empty only when nothing waits."""

    def __bool__(self) -> bool:
        return bool(self._next)

    def __iter__(self) -> Iterator[Delivery]:
        return chain.from_iterable(self._tenants.values())

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Add deliveries at the ends of their tenants' lines."""
        for tenant, group in groupby(deliveries, _TENANT):
            self._line(tenant).extend(group)
        self._choose()

    def appendleft(self, delivery: Delivery) -> None:
        """Add a delivery before everything else."""
        self._line(delivery.message.tenant).appendleft(delivery)
        self._tenants.move_to_end(delivery.message.tenant, last=False)
        self._choose()

    def popleft(self) -> Delivery | None:
        """Take the delivery whose turn it is; None when nothing waits."""
        line = self._next
        if not line:
            return None
        delivery = line.popleft()
        if not line:
            del self._tenants[delivery.message.tenant]
            self._choose()
        elif len(self._tenants) > 1:
            self._tenants.move_to_end(delivery.message.tenant)
            self._choose()
        return delivery

    def clear(self) -> None:
        """Forget everything."""
        self._tenants.clear()
        self._choose()

    def _line(self, tenant: str | None) -> deque[Delivery]:
        line = self._tenants.get(tenant)
        if line is None:
            line = self._tenants[tenant] = deque()
        return line

    def _choose(self) -> None:
        self._next = next(iter(self._tenants.values())) if self._tenants else deque()


class Buffer:
    """Owns every delivery from its claim until its settlement is reported by `settled`."""

    def __init__(self, *, concurrency: int, prefetch: int, batch: int, held_bytes: int) -> None:
        self._waiting = _FairQueue()
        self._idle_slots: list[anyio.Event] = []
        self._slot_is_waking = False
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._batch = batch
        self._held_bytes = held_bytes
        self._ahead = min(concurrency, prefetch)
        self._room_made = anyio.Event()
        self._emptied = anyio.Event()
        self.outstanding = 0
        """Deliveries that were claimed here and are not settled yet: waiting, in flight, or being settled."""
        self.large_bytes = 0
        """What the large ones among them have, together."""
        self.more_due = False
        """Whether the database held further due messages at the last claim."""
        self.closed = False

    def room(self) -> int:
        """How many messages to claim now; 0 while it would be too few to pay for a statement."""
        if self.large_bytes >= self._held_bytes:
            return 0
        free = self._concurrency + self._ahead - self.outstanding
        worth_it = min(self._batch, max(1, self._ahead // 2))
        return min(free, self._batch) if free >= worth_it else 0

    def narrow(self, concurrency: int) -> None:
        """Claim for so many slots from now on."""
        self._concurrency = concurrency
        self._ahead = min(self._ahead, max(1, concurrency))
        if self.room():
            self._room_made.set()

    def room_bytes(self) -> int:
        """How many bytes of large messages there is room for. One message may go beyond it."""
        return self._held_bytes - self.large_bytes

    async def wait_for_room(self) -> None:
        """Return when `room` may have grown, or the buffer was closed."""
        if not self.closed and not self.room():
            self._room_made = anyio.Event()
            await self._room_made.wait()

    async def wait_until_empty(self) -> None:
        """Return when nothing is outstanding, or the buffer was closed."""
        while self.outstanding and not self.closed:
            self._emptied = anyio.Event()
            await self._emptied.wait()

    def put(self, messages: Sequence[Message], batch: ClaimedBatch) -> None:
        """Take messages in that were claimed under a lease, and wake an idle slot."""
        firsts, rests = _series(messages) if batch.lane is not None else (messages, repeat(()))
        self._waiting.extend(
            list(map(_DELIVERY, zip(firsts, repeat(batch.claimed_s), repeat(batch.expires_s), rests, strict=False)))
        )
        self.count_in(messages)
        self.wake_slot()

    def count_in(self, messages: Sequence[Message]) -> None:
        """Count messages as outstanding until they are settled."""
        self.outstanding += len(messages)
        self.large_bytes += sum(filter(None, map(_LARGE, messages)))

    def put_first(self, delivery: Delivery) -> None:
        """Take in a delivery that goes on: it is next in line. It wakes no slot: the one that brings it takes it."""
        self._waiting.appendleft(delivery)

    def take(self, now_s: float) -> Delivery | None:
        """Hand the next delivery to a slot, or None if there is none. Wakes another slot for the one after it."""
        delivery = self._waiting.popleft()
        if delivery is None:
            return None
        if self._waiting:
            self.wake_slot()
        elif self.more_due:
            self._ahead = min(self._prefetch, max(1, self._ahead * 2))
            return delivery
        if now_s - delivery.claimed_s > _LONG_WAIT_S:
            self._ahead = max(min(self._concurrency, self._prefetch), self._ahead * 3 // 4)
        return delivery

    async def wait_for_delivery(self) -> None:
        """Put a slot to sleep until there is something to take, or the buffer was closed."""
        if not self._waiting and not self.closed:
            bell = anyio.Event()
            self._idle_slots.append(bell)
            try:
                await bell.wait()
            finally:
                if bell.is_set():
                    self._slot_is_waking = False
                else:  # cancelled
                    self._idle_slots.remove(bell)

    def take_out(self, which: Callable[[Message], bool] | None = None) -> list[Delivery]:
        """Take out what waits, or that of it which is meant, and return it for release. It stays outstanding.

        Deliveries go whole: what follows another message never goes before it.
        """
        out: list[Delivery] = []
        kept: list[Delivery] = []
        for delivery in self._waiting:
            (out if which is None or any(map(which, delivery.messages)) else kept).append(delivery)
        self._waiting.clear()
        self._waiting.extend(kept)
        return out

    def settled(self, messages: Iterable[Message], count: int) -> None:
        """Count messages out: they are settled, or their lease is somebody else's concern now."""
        self.outstanding -= count
        if self.large_bytes:
            self.large_bytes -= sum(filter(None, map(_LARGE, messages)))
        if self.room():
            self._room_made.set()
        if not self.outstanding:
            self._emptied.set()

    def close(self) -> None:
        """No more deliveries will come: everybody who waits here wakes up."""
        self.closed = True
        self._room_made.set()
        self._emptied.set()
        while self._idle_slots:
            self._idle_slots.pop().set()

    def wake_slot(self) -> None:
        """Wake the slot that has been idle for the shortest time, its data is warm, unless another is waking still.

        It will wake the next one. So a sink that answers at once is served by few slots, however many there are.
        """
        if self._idle_slots and self._waiting and not self._slot_is_waking:
            self._slot_is_waking = True
            self._idle_slots.pop().set()
