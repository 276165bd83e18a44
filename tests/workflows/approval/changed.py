"""A change of the definition that does not agree with approvals that have begun."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.approval.definitions import ApprovalWorkflow
    from outbox_workflows.approval.types import Standing


@workflow.defn(name="Approval")
class HastyApproval(ApprovalWorkflow):
    """Waits for a moment before it asks the approver."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        super().__init__(*given)

    @workflow.run
    async def run(self, *given: object) -> Standing:
        await workflow.sleep(1)
        return await self._run()
