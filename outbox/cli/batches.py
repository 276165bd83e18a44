"""Works through many dead letters in batches, each its own transaction, so that a break keeps what is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from outbox.loops.signals import stopping

BATCH = 500


@dataclass(slots=True)
class Tally:
    """How far a bulk command came."""

    done: int = 0
    stayed: list[UUID] = field(default_factory=list)
    """Those that the statement left where they are."""
    gone: int = 0
    """Those that another command had moved in the meantime."""
    interrupted: bool = False


async def in_batches(
    message_ids: Sequence[UUID],
    move: Callable[[Sequence[UUID]], Awaitable[dict[UUID, bool]]],
    advance: Callable[[int], object],
) -> Tally:
    """Hand the ids to `move`, a batch at a time, and call `advance` with each batch's size.

    `move` answers for each id that was there whether it was done. SIGINT or SIGTERM end the work after the running
    batch. A second signal ends it at once: that batch was then done as a whole or not at all, it is not known which.
    """
    tally = Tally()
    async with stopping() as stop:
        for start in range(0, len(message_ids), BATCH):
            if stop.asked:
                break
            batch = message_ids[start : start + BATCH]
            moved = await move(batch)
            tally.done += sum(moved.values())
            tally.stayed += [message_id for message_id, done in moved.items() if not done]
            tally.gone += len(batch) - len(moved)
            advance(len(batch))
    tally.interrupted = stop.asked
    return tally
