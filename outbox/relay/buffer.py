"""Where claimed messages wait for a free delivery slot, and idle slots wait for messages.

Everything that changes state here is synchronous. The buffer also decides how many messages to claim
ahead: twice as many when the slots have run dry, fewer when a message has waited too long.
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
"""A message that waits longer than this for a slot was claimed too early."""


_DELIVERY: Callable[[tuple[Message, float, float, Sequence[Message]]], Delivery] = partial(tuple.__new__, Delivery)
"""What `Delivery._make` does, without a Python frame for each of many messages."""
_LARGE = attrgetter("large_bytes")
_TENANT = attrgetter("message.tenant")


def _series(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The first message of each key, and the messages without a key; beside each, the later messages of its key."""
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
    """Deliveries in the order of arrival, except that tenants take turns."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[str | None, deque[Delivery]] = OrderedDict()
        self._next: deque[Delivery] = deque()
        """The queue of the next tenant; empty only when nothing waits."""

    def __bool__(self) -> bool:
        return bool(self._next)

    def __iter__(self) -> Iterator[Delivery]:
        return chain.from_iterable(self._tenants.values())

    def extend(self, deliveries: Sequence[Delivery]) -> None:
        """Add deliveries at the ends of their tenants' queues."""
        for tenant, group in groupby(deliveries, _TENANT):
            self._line(tenant).extend(group)
        self._choose()

    def appendleft(self, delivery: Delivery) -> None:
        """Add a delivery before everything else."""
        self._line(delivery.message.tenant).appendleft(delivery)
        self._tenants.move_to_end(delivery.message.tenant, last=False)
        self._choose()

    def popleft(self) -> Delivery | None:
        """Take the next delivery; None when nothing waits."""
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
    """Owns each delivery from its claim until `settled` reports its settlement."""

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
        """Messages that were claimed here and are not settled yet: waiting, in flight, or being settled."""
        self.large_bytes = 0
        """Bytes of the large ones among them."""
        self.more_due = False
        """Whether the database held further due messages at the last claim."""
        self.closed = False

    def room(self) -> int:
        """How many messages to claim now. 0 while there is room for too few to be worth a statement."""
        if self.large_bytes >= self._held_bytes:
            return 0
        free = self._concurrency + self._ahead - self.outstanding
        worth_it = min(self._batch, max(1, self._ahead // 2))
        return min(free, self._batch) if free >= worth_it else 0

    def narrow(self, concurrency: int) -> None:
        """Claim for this many slots from now on."""
        self._concurrency = concurrency
        self._ahead = min(self._ahead, max(1, concurrency))
        if self.room():
            self._room_made.set()

    def room_bytes(self) -> int:
        """How many bytes of large messages there is room for. One message may exceed it."""
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
        """Take in the messages of a claim, and wake an idle slot."""
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
        """Put a delivery in front of all others. This wakes no slot: a slot that calls it takes the next one itself."""
        self._waiting.appendleft(delivery)

    def take(self, now_s: float) -> Delivery | None:
        """Return the next delivery, None if there is none. Wakes another slot for the one after it."""
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
        """Sleep until there is something to take, or the buffer is closed."""
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
        """Take out the deliveries that wait, or those with a message of `which`, for release. They stay outstanding.

        A delivery goes as a whole: a message that follows another one never goes before it.
        """
        out: list[Delivery] = []
        kept: list[Delivery] = []
        for delivery in self._waiting:
            (out if which is None or any(map(which, delivery.messages)) else kept).append(delivery)
        self._waiting.clear()
        self._waiting.extend(kept)
        return out

    def settled(self, messages: Iterable[Message], count: int) -> None:
        """Count messages out: they are settled, or their lease is lost."""
        self.outstanding -= count
        if self.large_bytes:
            self.large_bytes -= sum(filter(None, map(_LARGE, messages)))
        if self.room():
            self._room_made.set()
        if not self.outstanding:
            self._emptied.set()

    def close(self) -> None:
        """No more deliveries will come. Everything that waits here wakes up."""
        self.closed = True
        self._room_made.set()
        self._emptied.set()
        while self._idle_slots:
            self._idle_slots.pop().set()

    def wake_slot(self) -> None:
        """Wake the slot that has been idle for the shortest time, as its data is warm, unless another one still wakes.

        It wakes the next one. So few slots serve a sink that answers at once.
        """
        if self._idle_slots and self._waiting and not self._slot_is_waking:
            self._slot_is_waking = True
            self._idle_slots.pop().set()
