"""Temporal's log lines in ours: one stream, one form, with the workflow or activity that a line is about."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from temporalio import activity, workflow
from temporalio.runtime import LogForwardingConfig, LoggingConfig

from outbox.observability.logs import pass_on

_CONTEXT = ("workflow_id", "run_id", "workflow_type", "workflow_run_id", "activity_id", "activity_type", "attempt")
"""The parts of Temporal's context in a line; the namespace and the task queue are the process's own."""


def configure() -> None:
    """Pass on what temporalio's loggers say. Call it after `outbox.observability.logs.configure`."""
    activity.logger.activity_info_on_message = workflow.logger.workflow_info_on_message = False
    pass_on("temporalio", context=context)


def core_logging() -> LoggingConfig:
    """Has the SDK's core, which would write to the console itself, log through Python and so through us."""
    forwarding = LogForwardingConfig(logger=logging.getLogger("temporalio.core"), append_target_to_name=False)
    return LoggingConfig(filter=LoggingConfig.default.filter, forwarding=forwarding)


def context(record: logging.LogRecord) -> dict[str, Any]:
    """The workflow, activity and attempt of a record, as far as it has them."""
    fields: dict[str, Any] = {}
    for name in ("temporal_workflow", "temporal_activity"):
        details = getattr(record, name, None)
        if isinstance(details, Mapping):
            fields |= {key: details[key] for key in _CONTEXT if key in details}
    return fields
