"""A change of the bootstrap's definition as nobody should make it."""

from __future__ import annotations

from temporalio import workflow

from workflows.organization.definitions import OrganizationBootstrap
from workflows.organization.words import Bootstrap, Bootstrapped, Site


@workflow.defn(name="OrganizationBootstrap")
class CreatesFirst(OrganizationBootstrap):
    """Makes the organisation before anything else."""

    @workflow.init
    def __init__(self, bootstrap: Bootstrap) -> None:
        super().__init__(bootstrap)

    @workflow.run
    async def run(self, bootstrap: Bootstrap) -> Bootstrapped:
        await self._step("create-organization", "organization.create", Site(bootstrap, ""))
        return await super().run(bootstrap)
