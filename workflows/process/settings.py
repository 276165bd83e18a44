"""What the workflow worker's variables say. Where its servers are, the relay's and Temporal's own variables say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from outbox.errors import ConfigurationError
from workflows.process.families import FAMILIES

_PREFIX = "OUTBOX_WORKFLOWS_"
Count = Annotated[int, Field(ge=1, le=10_000)]


class WorkflowSettings(BaseSettings):
    """Everything that `outbox workflows run` can be told. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    task_queue: str = Field("outbox-workflows", min_length=1, description="Task queue that the worker polls.")
    families: str = Field(
        ",".join(FAMILIES), description="Workflow families that the worker carries out, with commas between them."
    )
    concurrent_workflow_tasks: Count = Field(100, ge=2, description="Workflow tasks at once, at most.")
    concurrent_activities: Count = Field(50, description="Activities at once, at most.")
    database_connections: Annotated[int, Field(ge=1, le=500)] = Field(
        10, description="Connections to the database that all activities share, at most."
    )
    drain_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        30.0, description="How long a shutdown waits for activities before it cancels them."
    )
    mail: str = Field(
        "file:mail", description="Where mails go: file:<folder>, or smtp://, smtps:// with user:password@host:port."
    )
    mail_from: str = Field("workflows@localhost", description="Sender of mails.")
    dns_folder: Path = Field(Path("dns"), description="Folder of the zone files that DNS records are written to.")
    metrics_address: str | None = Field(
        None, description="host:port at which Temporal's SDK serves its metrics to Prometheus; none by default."
    )

    def chosen_families(self) -> list[str]:
        """The families by name. Raises ConfigurationError for one that there is not."""
        names = [name.strip() for name in self.families.split(",") if name.strip()]
        unknown = [name for name in names if name not in FAMILIES]
        if unknown or not names:
            raise ConfigurationError(
                f"{_PREFIX}FAMILIES is {self.families!r}: choose from {', '.join(FAMILIES)}, with commas between them"
            )
        return names


def load(**overrides: object) -> WorkflowSettings:
    """Read the environment; `overrides` are flags by field name, None where not given. Raises ConfigurationError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = WorkflowSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [f"{environment_name(str(f['loc'][0]))} is {f['input']!r}: {f['msg'].lower()}" for f in error.errors()]
        raise ConfigurationError(*faults) from error
    settings.chosen_families()
    return settings


def environment_name(field: str) -> str:
    """The environment variable of a field."""
    return _PREFIX + field.upper()
