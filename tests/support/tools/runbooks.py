"""Writes docs/runbooks.md from the alert rules, so that `runbook_url` leads somewhere: python -m tests.support.tools.runbooks."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "runbooks.md"
_HEAD = """# Runbooks

What each alert of `deploy/prometheus/alerts.yaml` means, and what to do. The same text is in its annotation `runbook`. `python -m tests.support.tools.runbooks` writes this page.
"""


def page() -> str:
    """Return the page's text."""
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    parts = [_HEAD]
    for rule in (rule for group in groups for rule in group["rules"]):
        first, _, steps = rule["annotations"]["runbook"].partition("1. ")
        parts.append(f"## {rule['alert']}\n\n*{rule['labels']['severity']}*. {first.strip()}\n\n1. {steps.strip()}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
