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

from tests.repo.deploy.metrics import SDK, known_metrics
from tests.support.tools import runbooks

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
ALERTMANAGER = yaml.safe_load((FOLDER / "alertmanager.yaml").read_text(encoding="utf-8"))
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
    for name, selector in re.findall(r"\b((?:outbox|temporal)_[a-z_]+)(?:\{([^}]*)\})?", expression):
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
    tests = [test["promql_expr_test"] for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]
    assert {look["expr"] for looks in tests for look in looks} == {
        f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    }
    assert [bool(look["exp_samples"]) for look in tests[0]] == [False, True, False]
    promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_rule_that_counts_sees_what_happened_before_the_first_scrape(alert: str) -> None:
    """`increase` of a counter that is born at three is nothing."""
    expression = ALERTS[alert]["expr"]
    counted = re.findall(r"increase\((\w+)", expression)
    if "rate(" not in expression:
        assert re.findall(r"unless present_over_time\((\w+)", expression) == counted


def test_an_alert_that_inhibits_others_names_existing_alerts_and_labels() -> None:
    for rule in ALERTMANAGER["inhibit_rules"]:
        [source], [target] = (
            [re.fullmatch(r"alertname =~? \"([\w|]+)\"", matcher)[1].split("|") for matcher in rule[f"{side}_matchers"]]  # type: ignore[index]
            for side in ("source", "target")
        )
        assert {*source, *target} <= set(ALERTS)
        assert not set(source) & set(target)
        for alert in (*source, *target):
            assert all(label in ALERTS[alert]["expr"] for label in rule["equal"]), (alert, rule["equal"])


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
    parts = re.findall(runbooks.HEADINGS, rule["annotations"]["runbook"], re.MULTILINE)
    assert parts == ["What you see", "Why", "Check", "Cure"]
    assert rule["annotations"]["runbook_url"] == f"https://outbox.example/runbooks#{alert.lower()}"
    row = f"| `{alert}` | {rule['labels']['severity']} |"
    assert row in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_the_page_of_runbooks_is_what_the_rules_say() -> None:
    assert runbooks.PAGE.read_text(encoding="utf-8") == runbooks.page(), "run: python -m tests.support.tools.runbooks"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_summary_shows_no_fraction_of_a_message(alert: str) -> None:
    shown = re.findall(r"\$value \| ([^}]+?) *\}", ALERTS[alert]["annotations"]["summary"])
    assert set(shown) <= {'printf "%.0f"', "humanizeDuration", "humanizePercentage"}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_about_metrics_that_exist(alert: str) -> None:
    assert re.search("outbox_|temporal_", ALERTS[alert]["expr"])
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
    assert re.search("outbox_|temporal_", expression), title
    assert not unknown(expression), title


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in ALERTS.values()), *(e for _, e in TARGETS)])
def test_only_our_own_workers_serve_metrics_of_the_sdk(expression: str) -> None:
    asked = re.findall(
        r"\b(temporal_[a-z_]+)(\{program=\"outbox-workflows\")?", expression.split("unless present", 1)[0]
    )
    assert all(name in SDK and own for name, own in asked)


def test_panels_do_not_overlap_or_share_a_name() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert all(0 <= x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
