"""What the workflow worker would go by, for `outbox config`."""

from __future__ import annotations

import os

from pydantic import SecretStr

from outbox.config import environment_model as fields
from outbox.model.mask import MASK
from outbox.model.sink import Setting, SinkSettings
from outbox.postgres.address import Environment, Faults


def read() -> SinkSettings:
    """Its settings and what is wrong with them; none if its libraries are not installed."""
    try:
        from outbox_workflows.worker.settings import WorkflowSettings, environment_name  # noqa: PLC0415 - see above
    except ImportError:
        return SinkSettings(())
    faults = Faults()
    found = fields.read(WorkflowSettings, Environment(os.environ), faults, {})
    shown = [
        Setting(environment_name(field), _shown(getattr(found.settings, field)), found.origins.get(field, "default"))
        for field in WorkflowSettings.model_fields
    ]
    return SinkSettings(tuple(shown), tuple(faults.found))


def _shown(value: object) -> str | float | bool | None:
    """A value for people. Where mails go by SMTP has a password in it."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return text if text.startswith("file:") else MASK
    return value if value is None or isinstance(value, str | float | int | bool) else str(value)
