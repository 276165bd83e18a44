"""The workflow that benchmarks start."""

from __future__ import annotations

from temporalio import workflow

WORKFLOW = "OutboxBench"


@workflow.defn(name=WORKFLOW)
class BenchWorkflow:
    """Ends at once."""

    @workflow.run
    async def run(self, order: dict[str, int]) -> int:
        """Return what it was given."""
        return order["organization_id"]


NAME = "outbox-bench"
"""The name that the worker and its clients use."""
