"""What may stand in the environment of a container."""

from __future__ import annotations

from outbox.config import Settings, environment_name
from workflows import settings as adapter
from workflows.settings import TemporalSettings

COMING = {"OUTBOX_HTTP_PORT"}
"""Settings that the image and the manifests set, and that a version without them ignores."""


def known_settings() -> set[str]:
    """The variables that the worker reads, Temporal's own among them."""
    temporal = {"TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY"}
    core = {environment_name(field) for field in Settings.model_fields}
    return COMING | temporal | core | {adapter.environment_name(field) for field in TemporalSettings.model_fields}
