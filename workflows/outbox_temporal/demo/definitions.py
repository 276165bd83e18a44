"""The demo's one workflow."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow


@dataclass
class Order:
    """What the shop's transaction writes into the outbox."""

    number: int
    amount: int
    """In cents."""


@workflow.defn(name="DemoOrder")
class OrderWorkflow:
    """Confirms an order. It does nothing else, because the demo is about how it starts."""

    @workflow.run
    async def run(self, order: Order) -> str:
        """Return the confirmation."""
        return f"order {order.number} over {order.amount / 100:.2f} confirmed"
