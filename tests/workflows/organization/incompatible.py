"""A change of the bootstrap's definition that breaks replay."""

from __future__ import annotations

from temporalio import workflow

from outbox_workflows.organization.definitions import CREATE, OrganizationBootstrapWorkflow
from outbox_workflows.organization.types import Bootstrapped, Site


@workflow.defn(name="OrganizationBootstrap")
class CreatesFirst(OrganizationBootstrapWorkflow):
    """Makes the organisation before anything else."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        super().__init__(*given)

    @workflow.run
    async def run(self, *given: object) -> Bootstrapped:
        await self._saga.take(CREATE, Site(self._bootstrap, ""), type(None))
        return await super().run(*given)
