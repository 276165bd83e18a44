"""What the demo counts while it runs, from the relay's events, and at the end, from Temporal's own list."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING

import anyio
from temporalio.client import Client

from outbox.model.events import Buried, Completed, Event, Held, Resumed, SourceLost, SourceReady

if TYPE_CHECKING:
    from uuid import UUID

    from outbox_temporal.demo.shop import Shop

_VISIBLE_WITHIN_S = 30.0
"""Temporal's list of workflows is eventually consistent."""


@dataclass
class DemoCounts:
    """A subscriber of the relay's events."""

    started: int = 0
    duplicates: int = 0
    buried: list[str] = field(default_factory=list)
    started_at: dict[UUID, float] = field(default_factory=dict)
    """Message id → monotonic seconds of Temporal's acknowledgement, for messages that started their workflow."""
    state: str = "starting"
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Completed(settlements):
                for settlement in settlements:
                    if settlement.outcome.duplicate:
                        self.duplicates += 1
                    else:
                        self.started += 1
                        self.started_at[settlement.message.message_id] = settlement.delivered_s
            case Buried(message, _, outcome):
                self.buried.append(f"{message.label}: {outcome.detail}")
            case Held(outcome):
                self.state = f"holding: {outcome.detail}"
            case Resumed() | SourceReady():
                self.state = "running"
            case SourceLost(source, error):
                self.state = f"{source} lost ({error}), polling"
        self.changed.set()

    async def settled(self, shop: Shop) -> None:
        """Wait until every committed message of the shop has been settled."""
        while self.started + self.duplicates + len(self.buried) < len(shop.committed_at):
            self.changed = anyio.Event()
            await self.changed.wait()

    def latencies_ms(self, shop: Shop) -> list[float]:
        """Milliseconds from the commit to Temporal's acknowledgement of each start, sorted."""
        return sorted(
            1000 * (self.started_at[i] - shop.committed_at[i]) for i in self.started_at if i in shop.committed_at
        )


@dataclass(frozen=True)
class DemoResult:
    """The shop's books against Temporal's list of workflow executions."""

    found: Counter[str]
    missing: set[str]
    ghosts: set[str]
    twice: set[str]

    @property
    def good(self) -> bool:
        """Whether every committed order has exactly one workflow, and no rolled-back order any."""
        return not (self.missing or self.ghosts or self.twice)

    def faults(self) -> list[str]:
        """One line for each kind of disagreement."""
        kinds = {
            "committed but not started": self.missing,
            "rolled back but started": self.ghosts,
            "started twice": self.twice,
        }
        return [f"{kind}: {', '.join(sorted(ids)[:5])}" for kind, ids in kinds.items() if ids]


async def compare(client: Client, shop: Shop) -> DemoResult:
    """Read Temporal's list until it shows as many executions as orders were committed, and judge it."""
    query = f'WorkflowType = "DemoOrder" AND WorkflowId STARTS_WITH "demo-{shop.run}-"'
    found: Counter[str] = Counter()
    with anyio.move_on_after(_VISIBLE_WITHIN_S):
        while True:
            found = Counter([execution.id async for execution in client.list_workflows(query, page_size=1000)])
            if found.total() >= len(shop.committed):
                break
            await anyio.sleep(0.1)
    return DemoResult(
        found,
        missing=shop.committed - found.keys(),
        ghosts=found.keys() & shop.rolled_back,
        twice={workflow_id for workflow_id, n in found.items() if n > 1},
    )


def percentile_ms(sorted_ms: list[float], percent: int) -> float:
    """The given percentile of sorted values; 0 of none."""
    if len(sorted_ms) < 2:
        return sorted_ms[0] if sorted_ms else 0.0
    return quantiles(sorted_ms, n=100, method="inclusive")[percent - 1]
