"""What a worker tells Prometheus, as the table in `docs/operations.md` has it, which is tested against the code."""

from __future__ import annotations

import re
from pathlib import Path

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
EVERYWHERE = {"instance", "job", "namespace", "le"}
PARTS = {"histogram": ("_bucket", "_count", "_sum")}


def known_metrics() -> dict[str, set[str]]:
    """The labels of every series, by its name."""
    rows = re.findall(r"^\| `(outbox_\w+)` \| (\w+) \| ([^|]*) \|", OPERATIONS, re.MULTILINE)
    return {
        name + part: EVERYWHERE | set(re.findall(r"\w+", labels))
        for name, kind, labels in rows
        for part in PARTS.get(kind, ("",))
    }
