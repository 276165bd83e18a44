"""Temporal's log lines in ours: one stream, one form, with the workflow or activity that a line is about."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from loguru import logger
from temporalio import activity, workflow

_CONTEXT = ("workflow_id", "run_id", "workflow_type", "workflow_run_id", "activity_id", "activity_type", "attempt")
"""What of Temporal's context stands in a line; the namespace and the task queue are the process's own."""


def configure() -> None:
    """Pass on what temporalio's loggers say. Call it after `outbox.logs.configure`."""
    activity.logger.activity_info_on_message = workflow.logger.workflow_info_on_message = False
    source = logging.getLogger("temporalio")
    source.handlers = [_Passing()]
    source.propagate = False
    source.setLevel(logging.DEBUG)


class _Passing(logging.Handler):
    """Hands a standard record to loguru, with Temporal's context as bound fields."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.bind(**context(record)).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def context(record: logging.LogRecord) -> dict[str, Any]:
    """The workflow, activity and attempt of a record, as far as it has them."""
    fields: dict[str, Any] = {}
    for name in ("temporal_workflow", "temporal_activity"):
        details = getattr(record, name, None)
        if isinstance(details, Mapping):
            fields |= {key: details[key] for key in _CONTEXT if key in details}
    return fields
