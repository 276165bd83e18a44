"""What a run of `outbox import` found and did: for the screen, and whole for a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from outbox.model.errors import OutboxError
from outbox.model.json_output import json_output
from outbox_temporal.importing.mapping import ImportMapping

_MOST_WARNINGS = 20


class RowFault(NamedTuple):
    """A row that a person should look at."""

    identity: str
    what: str
    """One of few words, by which findings are counted."""
    detail: str
    workflow_id: str | None = None


@dataclass(slots=True)
class ImportReport:
    """One run. `counts` are in the order in which they are shown."""

    name: str
    mapping: str
    mode: str
    rows: int = 0
    """How many there are to look at."""
    done: int = 0
    """How many were looked at."""
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[RowFault] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """What will go wrong later if it is not corrected."""
    interrupted: bool = False
    begun_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _begun_s: float = field(default_factory=monotonic)

    @classmethod
    def of(cls, mapping: ImportMapping, mode: str) -> ImportReport:
        """An empty report."""
        return cls(mapping.name, str(mapping.path), mode)

    def count(self, what: str, number: int = 1) -> None:
        """Count."""
        self.counts[what] = self.counts.get(what, 0) + number

    def find(self, finding: RowFault) -> None:
        """Count a row that a person should look at, and keep it."""
        self.count(finding.what)
        self.findings.append(finding)

    def warn(self, text: str) -> None:
        """Keep a warning, once; of many the first."""
        if text not in self.warnings and len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(text)

    def write(self, path: Path) -> None:
        """Write the whole report as JSON. Raises OutboxError."""
        whole = {
            "import": self.name,
            "mapping": self.mapping,
            "mode": self.mode,
            "begun_at": self.begun_at,
            "seconds": round(monotonic() - self._begun_s, 3),
            "interrupted": self.interrupted,
            "rows": self.rows,
            "done": self.done,
            "counts": self.counts,
            "findings": [finding._asdict() for finding in self.findings],
            "samples": self.samples,
            "warnings": self.warnings,
        }
        try:
            path.write_bytes(json_output(whole, indent=True))
        except OSError as error:
            raise OutboxError(f"the report {path} cannot be written: {error.strerror}") from error
