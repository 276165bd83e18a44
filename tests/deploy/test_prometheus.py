"""The alert rules and the dashboard, asked by Prometheus' own tool: they parse, they fire, they clear."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.metrics import known_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
[GROUP] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
TARGETS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="Debian's package prometheus is not installed here; .ci/run installs it"
)


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must be content, and return what it said."""
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unknown(expression: str) -> set[str]:
    """The series and labels in an expression that no worker has."""
    known, found = known_metrics(), set()
    for name, selector in re.findall(r"\b(outbox_[a-z_]+)(?:\{([^}]*)\})?", expression):
        labels = set(re.findall(r"(\w+)\s*[=!]", selector))
        found |= {f"{name}{{{label}}}" for label in labels - known[name]} if name in known else {name}
    return found


@needs_promtool
def test_the_rules_and_the_configuration_are_valid() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", FOLDER / "alerts.yaml")
    promtool("check", "config", FOLDER / "prometheus.yaml")


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_fires_and_clears(alert: str) -> None:
    file = FOLDER / "tests" / f"{alert}.yaml"
    [test] = yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
    looks = test["promql_expr_test"]
    assert {look["expr"] for look in looks} == {f'ALERTS{{alertname="{alert}", alertstate="firing"}}'}
    assert [bool(look["exp_samples"]) for look in looks] == [False, True, False]
    promtool("test", "rules", file)


@needs_promtool
def test_a_test_of_an_alert_can_fail(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text((FOLDER / "alerts.yaml").read_text().replace("> 60", "> 6000"))
    (tmp_path / "tests").mkdir()
    shutil.copy(FOLDER / "tests" / "OutboxMessagesWait.yaml", tmp_path / "tests")
    with pytest.raises(AssertionError, match="FAILED"):
        promtool("test", "rules", tmp_path / "tests" / "OutboxMessagesWait.yaml")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule: dict[str, Any] = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert re.search(r"^1\. ", rule["annotations"]["runbook"], re.MULTILINE)
    row = f"| `{alert}` | {rule['labels']['severity']} |"
    assert row in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_about_metrics_that_exist(alert: str) -> None:
    assert "outbox_" in ALERTS[alert]["expr"]
    assert not unknown(ALERTS[alert]["expr"])


@needs_promtool
def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(TARGETS)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(TARGETS)} rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=[f"{title} {n}" for n, (title, _) in enumerate(TARGETS)])
def test_a_panel_shows_metrics_that_exist(title: str, expression: str) -> None:
    assert "outbox_" in expression, title
    assert not unknown(expression), title


def test_panels_neither_overlap_nor_share_a_name() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert all(0 <= x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
