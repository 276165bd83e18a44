"""The task queue of the families that come along."""

from __future__ import annotations

DEFAULT_TASK_QUEUE = "outbox-workflows"
