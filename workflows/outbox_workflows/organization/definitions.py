"""The workflow of an organisation's bootstrap: a saga that announces every step through the outbox.

| step                | does                                  | undone by                              |
|---------------------|---------------------------------------|----------------------------------------|
| announce            | says that the workflow runs           | a row and an event that say why        |
| configure-dns       | has the name lead to the application  | removing the name                      |
| create-organization | makes the organisation's row          | what undoes announce                   |
| create-invitations  | makes the invitations                 | revoking them                          |
| send-invitation-n   | mails the nth one                     |                                        |
| complete            | makes it active; there is no way back |                                        |
"""

from __future__ import annotations

from functools import partial

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from outbox_workflows.organization.types import Bootstrap, Bootstrapped, Invitation, Sending, Site, UndoBootstrap
    from outbox_workflows.organization.validation import faults
    from outbox_workflows.shared.arguments import begun, refuse
    from outbox_workflows.shared.cancellable import CancellableSaga
    from outbox_workflows.shared.saga import Saga, SagaStep

ANNOUNCE = SagaStep("announce", "organization.announce", 5, undo="organization.conclude")
DNS = SagaStep("configure-dns", "organization.configure_dns", 25, undo="organization.remove_dns", whole=True)
CREATE = SagaStep("create-organization", "organization.create", 40)
INVITE = SagaStep("create-invitations", "organization.invite", 60, undo="organization.revoke_invitations")
COMPLETE = SagaStep("complete", "organization.complete", 100, final=True)


@workflow.defn(name="OrganizationBootstrap")
class OrganizationBootstrapWorkflow(CancellableSaga):
    """Bootstraps one organisation, or leaves nothing of it but a row that says why not."""

    @workflow.init
    def __init__(self, *given: object) -> None:
        self._bootstrap, self._faults = begun(Bootstrap, given, faults)
        order = partial(UndoBootstrap, self._bootstrap)
        self._saga = Saga(self._bootstrap.tenant_id, "system", self._bootstrap.patience, order)

    @workflow.run
    async def run(self, *given: object) -> Bootstrapped:  # noqa: ARG002 - the constructor has taken it
        """Return what was made, or that it was cancelled by a command.

        Fails, with everything undone, with ApplicationError of type InvalidRequest, Refused, TenantDeleted,
        DatabaseRefused or StepFailed (no time left for it); or NotUndone; its details name what is left.
        """
        refuse(self._faults)
        cancelled = Bootstrapped("cancelled", self._bootstrap.organization_id)
        return await self._saga.run(self._steps(self._bootstrap), if_cancelled=cancelled)

    async def _steps(self, bootstrap: Bootstrap) -> Bootstrapped:
        saga = self._saga
        await saga.take(ANNOUNCE, bootstrap, type(None))
        domain = await saga.take(DNS, bootstrap, str)
        site = Site(bootstrap, domain)
        await saga.take(CREATE, site, type(None))
        invitations = await saga.take(INVITE, site, list[Invitation])
        for number, invitation in enumerate(invitations, 1):
            await saga.take(_sending(number, len(invitations)), Sending(site, invitation), type(None))
        await saga.take(COMPLETE, site, type(None))  # others will act on its event
        return Bootstrapped("bootstrapped", bootstrap.organization_id, domain, len(invitations))


def _sending(number: int, of: int) -> SagaStep:
    return SagaStep(f"send-invitation-{number}", "organization.send_invitation", 60 + 35 * number // of, whole=True)


WORKFLOWS = (OrganizationBootstrapWorkflow,)
