"""What all parts of one relay share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outbox.loops.watchdog import Watchdog
    from outbox.model.events import Emit
    from outbox.model.sink import Sink
    from outbox.relay.settings import RelaySettings
    from outbox.store.messages import Store
    from outbox.wakeup.doorbell import Wakeup


@dataclass(frozen=True, slots=True)
class RelayContext:
    """Where messages come from and go to, what wakes the relay, and who hears of it."""

    store: Store
    sink: Sink
    wakeup: Wakeup
    emit: Emit
    settings: RelaySettings
    watchdog: Watchdog
    worker_id: int
    on_other_workers_busy: Callable[[], None] = lambda: None
    """Called when other workers hold messages."""
