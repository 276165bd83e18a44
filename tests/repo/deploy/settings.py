"""What may stand in the environment of a container."""

from __future__ import annotations

from outbox.config.settings import Settings, environment_name
from outbox_temporal.sink import settings as adapter
from outbox_temporal.sink.settings import TemporalSettings
from outbox_workflows.worker import settings as process
from outbox_workflows.worker.settings import WorkflowSettings


def known_settings() -> set[str]:
    """The variables that relay and workflow worker read, Temporal's own among them."""
    return {
        *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_CONFIG_FILE"),
        *("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
        *("DATABASE_URL_FILE", "OUTBOX_LISTEN_URL_FILE", "OUTBOX_WORKFLOWS_MAIL_FILE"),
        *map(environment_name, Settings.model_fields),
        *map(adapter.environment_name, TemporalSettings.model_fields),
        *map(process.environment_name, WorkflowSettings.model_fields),
    }
