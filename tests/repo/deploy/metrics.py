"""The metrics of workers: of relays as in the table of `docs/operations.md`, of workflow workers as in `SDK`.

Both are tested against the code: the table in `tests/repo/docs`, `SDK` in `tests/workflows/worker/test_worker.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

OPERATIONS = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
EVERYWHERE = {"instance", "job", "namespace", "le"}
SDK: dict[str, set[str]] = {
    "temporal_num_pollers": {"task_queue", "poller_type"},
    "temporal_worker_task_slots_available": {"task_queue", "worker_type"},
    "temporal_workflow_task_execution_failed_total": {"task_queue", "workflow_type"},
    "temporal_workflow_task_schedule_to_start_latency_seconds_bucket": {"task_queue"},
    "temporal_activity_execution_failed_total": {"task_queue", "activity_type"},
    "temporal_activity_schedule_to_start_latency_seconds_bucket": {"task_queue"},
    "temporal_workflow_failed_total": {"task_queue", "workflow_type"},
}
"""The metrics of Temporal's SDK that rules and panels name, with their labels; each has `program` too."""
PARTS = {"histogram": ("_bucket", "_count", "_sum")}


def known_metrics() -> dict[str, set[str]]:
    """The labels of every series, by its name."""
    rows = re.findall(r"^\| `(outbox_\w+)` \| (\w+) \| ([^|]*) \|", OPERATIONS, re.MULTILINE)
    return {
        name + part: EVERYWHERE | set(re.findall(r"\w+", labels))
        for name, kind, labels in rows
        for part in PARTS.get(kind, ("",))
    } | {name: EVERYWHERE | labels | {"program"} for name, labels in SDK.items()}
