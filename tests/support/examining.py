"""What the doctor finds."""

from __future__ import annotations

from typing import Any

from outbox.config import settings as config
from outbox.doctor import CHECKS, examine
from outbox.doctor.server import DISK
from outbox.model.finding import Finding
from outbox.model.sink import SinkFactory
from outbox_temporal import doctor as examination
from tests.support.sinks import null_sink

GRADES = {check.what: {"good", *check.grades} for check in (*CHECKS, *examination.CHECKS)}


async def examined(dsn: str | None, factory: SinkFactory | None = null_sink, **chosen: Any) -> list[Finding]:
    """Everything that is found. Chosen are fields of the settings, or environment variables by their own names."""
    reading = config.read(database_url=dsn, **{name.lower(): value for name, value in chosen.items()})
    groups = await examine(reading, factory, reading.faults)
    findings = [finding for group in groups for finding in group.findings]
    for finding in findings:
        assert finding.grade in GRADES[finding.what] or finding.reason_untried, finding
        assert (finding.cure is None) == (finding.grade == "good" or finding.reason_untried is not None), finding
    return [finding for finding in findings if not _is_of_tests(finding)]


def _is_of_tests(finding: Finding) -> bool:
    """Whether it is that the tests' servers write fast, not safely."""
    return finding.what == DISK.what and finding.reason_untried is None


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    """What was tried and is not good, by check."""
    return {f.what: f for f in findings if f.grade != "good" and f.reason_untried is None}


def untried(findings: list[Finding]) -> dict[str, str]:
    """What could not be tried, and why."""
    return {finding.what: reason for finding in findings if (reason := finding.reason_untried)}


def safe(findings: list[Finding]) -> bool:
    """Whether a worker may be started."""
    return all(finding.grade != "fault" for finding in findings)
