"""A TenantCreation that must not be released: it leaves steps out."""

from __future__ import annotations

from temporalio import workflow

from outbox_workflows.tenant.definitions import COMPLETE, CREATE, TenantCreation
from outbox_workflows.tenant.types import Created, TenantMade, TenantOrder


@workflow.defn(name="TenantCreation")
class Hasty(TenantCreation):
    """Creates without validating, and completes at once."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        super().__init__(*given)

    @workflow.run
    async def run(self, *given: object) -> Created:
        return await super().run(*given)

    async def _steps(self) -> Created:
        made = await self._saga.take(CREATE, self._request, TenantMade)
        tenant_id = self._request.tenant_id
        await self._saga.take(COMPLETE, TenantOrder(tenant_id), type(None))
        return Created("created", tenant_id, made.company_id)
