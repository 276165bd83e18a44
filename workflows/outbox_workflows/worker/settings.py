"""What the workflow worker's variables say. Where its servers are, the relay's and Temporal's own variables say."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator

from outbox.config import environment_model as fields
from outbox.model.errors import ConfigurationError
from outbox_workflows.organization.dns import FileDns
from outbox_workflows.shared.mail import FileMailer, Mailer
from outbox_workflows.shared.smtp import SmtpMailer, smtp_server
from outbox_workflows.shared.task_queue import DEFAULT_TASK_QUEUE
from outbox_workflows.worker.families import FAMILIES, Ports

_PREFIX = "OUTBOX_WORKFLOWS_"
_FILES = "file:"
Count = Annotated[int, Field(ge=1, le=10_000)]


class WorkflowSettings(BaseModel):
    """Every setting of `outbox workflows run`. Durations are seconds."""

    model_config = fields.named(_PREFIX)

    task_queue: str = Field(DEFAULT_TASK_QUEUE, description="Task queue that the worker polls.")
    families: str = Field(
        ",".join(FAMILIES), description="Workflow families that the worker carries out, with commas between them."
    )
    concurrent_workflow_tasks: Annotated[int, Field(ge=2, le=10_000)] = Field(
        100, description="Workflow tasks at once, at most."
    )
    concurrent_activities: Count = Field(50, description="Activities at once, at most.")
    database_connections: Annotated[int, Field(ge=1, le=500)] = Field(
        10, description="Connections to the database that all activities share, at most."
    )
    drain_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        30.0, description="How long a shutdown waits for activities before it cancels them."
    )
    mail: SecretStr = Field(
        SecretStr("file:mail"),
        description="Where mails go: file:folder, or smtp:// or smtps:// with user:password@host:port.",
    )
    mail_from: str = Field("workflows@localhost", description="Sender of mails.")
    dns_folder: Path = Field(Path("dns"), description="Folder of the files that DNS records are written to.")
    dns_zone: str = Field("localhost", description="DNS zone of organisations' names.")
    dns_target: str = Field("localhost", description="Host that organisations' names lead to.")
    metrics_address: str | None = Field(
        None, description="host:port at which Temporal's SDK serves its metrics to Prometheus."
    )

    @field_validator("families")
    @classmethod
    def _check_families(cls, families: str) -> str:
        names = _listed(families)
        if not names or not FAMILIES.keys() >= set(names):
            raise ValueError(f"choose from {', '.join(FAMILIES)}, with commas between them")
        return families

    @field_validator("mail")
    @classmethod
    def _check_mail(cls, mail: SecretStr) -> SecretStr:
        if not mail.get_secret_value().startswith(_FILES):
            try:
                smtp_server(mail.get_secret_value())
            except ConfigurationError as error:
                raise ValueError(f"{error}, or file:folder") from error
        return mail

    def chosen_families(self) -> list[str]:
        """The families by name."""
        return _listed(self.families)

    def ports(self) -> Ports:
        """The world as these settings have it."""
        return Ports(self._mailer(), FileDns(self.dns_folder, self.dns_zone, self.dns_target))

    def _mailer(self) -> Mailer:
        where = self.mail.get_secret_value()
        if where.startswith(_FILES):
            return FileMailer(Path(where.removeprefix(_FILES)), self.mail_from)
        return SmtpMailer(smtp_server(where), self.mail_from)


def load(**flags: object) -> WorkflowSettings:
    """Read the environment; `flags` are the command line's, None if not given. Raises ConfigurationError."""
    return fields.load(WorkflowSettings, **flags)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


environment_name = partial(fields.environment_name, WorkflowSettings)
"""The environment variable of a field, as a person would write it."""
