"""Writes docs/runbooks.md from the alert rules, so that `runbook_url` leads somewhere: python -m tests.support.tools.runbooks."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "runbooks.md"
HEADINGS = r"^(What you see|Why|Check|Cure):"
_HEAD = """# Runbooks

One runbook for each alert of `deploy/prometheus/alerts.yaml`: what you see, why, what to check, and
the cure. The alert's annotation `runbook` has the same text.
`python -m tests.support.tools.runbooks` writes this page.
"""


def page() -> str:
    """Return the page's text."""
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    parts = [_HEAD]
    for rule in (rule for group in groups for rule in group["rules"]):
        text = re.sub(HEADINGS, r"\n**\1:**", rule["annotations"]["runbook"], flags=re.MULTILINE)
        text = re.sub(r":\*\*\n1\.", r":**\n\n1.", text)
        parts.append(f"## {rule['alert']}\n\n*{rule['labels']['severity']}*\n\n{text.strip()}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
