"""`outbox routes check` in a process of its own: exit codes, and what it says."""

from __future__ import annotations

import os
from pathlib import Path
from time import process_time

import pytest

from outbox_temporal.doctor import routes_command
from outbox_temporal.sink import settings
from outbox_temporal.sink.allow_list import Allowed
from outbox_temporal.target.table import Routes
from tests.support.commands import run

ROUTES = """\
[[route]]
topic = "organization.created"
workflow = "OrganizationBootstrap"
workflow_id = "org-bootstrap-{organization_id}"
task_queue = "organizations"
run_timeout = "1h"

[[route]]
topic = "cart.*"
workflow = "Cart"
workflow_id = "cart-{key}"
signal = "in vain"
"""


def check(directory: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "DATABASE_"))}
    done = run(["routes", "check", *arguments], cwd=directory, env=env | environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "outbox.toml").write_text(ROUTES, encoding="utf-8")
    return tmp_path


def test_a_good_file_is_listed_with_what_is_doubtful(directory: Path) -> None:
    code, out, err = check(directory)
    assert (code, err) == (0, "")
    [first] = [line.split() for line in out.splitlines() if "organization.created" in line]
    workflow_id = "org-bootstrap-{organization_id}"
    assert first == [
        "1",
        "organization.created",
        "start_workflow",
        "OrganizationBootstrap",
        workflow_id,
        "organizations",
    ]
    assert "outbox.toml: 2 routes, no fault\n" in out
    doubts = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert len(doubts) == 2
    assert doubts[0].startswith("warning: outbox.toml:8: route 'cart.*': signal means nothing to start_workflow")
    assert "OUTBOX_TEMPORAL_TASK_QUEUE" in doubts[1]
    _, out, _ = check(directory, OUTBOX_TEMPORAL_TASK_QUEUE="carts")
    assert "no task_queue" not in out
    assert "carts" in out


def test_a_sample_is_shown_with_its_route_and_its_target(directory: Path) -> None:
    code, out, err = check(directory, "--topic", "organization.created", "--payload", '{"organization_id": 42}')
    assert (code, err) == (0, "")
    assert "route        organization.created  (outbox.toml:1)\nworkflow id  org-bootstrap-42\n" in out
    assert '"run_timeout_s": 3600.0' in out
    code, out, _ = check(directory, "--topic", "cart.x", "--key", "7", OUTBOX_TEMPORAL_TASK_QUEUE="carts")
    assert (code, "cart-7" in out, '"task_queue": "carts"' in out) == (0, True, True)


def test_what_the_allow_list_refuses_is_said(tmp_path: Path) -> None:
    text = "[[route]]\ntopic = 'a'\noperation = 'terminate_workflow'\nworkflow_id = 'w'\nnamespace = 'other'\n"
    (tmp_path / "outbox.toml").write_text(text, encoding="utf-8")
    said = "namespace 'other' is not allowed to this worker: add it to OUTBOX_TEMPORAL_ALLOWED_NAMESPACES"
    code, out, _ = check(tmp_path)
    assert (code, said in out) == (0, True)
    code, out, _ = check(tmp_path, "--topic", "a")
    assert (code, f"NOT_ALLOWED: {said}" in out, "would be buried" in out) == (1, True, True)
    allowed = {"OUTBOX_TEMPORAL_ALLOWED_NAMESPACES": "other"}
    code, out, _ = check(tmp_path, "--topic", "a", **allowed)
    assert (code, "terminate_workflow" in out) == (0, True)
    assert said not in check(tmp_path, **allowed)[1]


def test_a_route_that_records_is_listed_and_shown_as_such(tmp_path: Path) -> None:
    text = "[[route]]\ntopic = 'a.*'\noperation = 'record'\nworkflow_id = 'in-vain'\n"
    (tmp_path / "outbox.toml").write_text(text, encoding="utf-8")
    code, out, _ = check(tmp_path)
    assert code == 0
    assert ["1", "a.*", "record"] in [line.split() for line in out.splitlines()]
    assert "workflow_id means nothing to record" in out
    code, out, _ = check(tmp_path, "--topic", "a.b")
    assert (code, "nothing would be called: the message would go to the history" in out) == (0, True)


def test_a_sample_that_goes_nowhere_is_reported_why_and_what_becomes_of_it(directory: Path) -> None:
    code, out, _ = check(directory, "--topic", "organization.created", "--payload", "{}")
    assert code == 1
    assert (
        "route 'organization.created' (outbox.toml:1): workflow_id: {organization_id} is missing in the payload" in out
    )
    assert "would be buried" in out
    code, out, _ = check(directory, "--topic", "other", OUTBOX_UNROUTABLE="leave")
    assert code == 1
    assert "no route in outbox.toml matches the topic 'other'" in out
    assert "would be left for later" in out


def test_faults_are_one_line_each_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[[route]]\ntpic = 'a'\nworkflow_id = '{'\n", encoding="utf-8")
    for arguments, environment in ((("--file", "my.toml"), {}), ((), {"OUTBOX_ROUTES": "my.toml"})):
        code, out, err = check(tmp_path, *arguments, **environment)
        assert (code, out) == (2, "")
        assert [line[: len("outbox: my.toml:1: ")] for line in err.splitlines()] == [
            "outbox: my.toml:1: ",
            "outbox: my.toml:1: ",
            "outbox: my.toml:2: ",
            "outbox: my.toml:3: ",
        ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--topic", "x", "--payload", "{"), "--payload is not JSON"),
        (("--topic", "x", "--headers", "[]"), "--headers must be a JSON object"),
        (("--payload", "{}"), "a sample message needs --topic"),
        (("--file", "absent.toml"), "absent.toml cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_in_the_flags_is_one_line(directory: Path, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = check(directory, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err


def test_without_any_file_it_says_where_one_belongs(tmp_path: Path) -> None:
    code, _, err = check(tmp_path)
    assert code == 2
    assert "OUTBOX_ROUTES" in err


def test_a_list_of_thousands_takes_less_time_than_their_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of rich took six times as long; and each route was looked for among all those without a task queue."""
    path = tmp_path / "outbox.toml"
    route = '[[route]]\ntopic = "orders.kind{0}"\nworkflow = "Order{0}"\nworkflow_id = "order-{{order_id}}-{0}"\n'
    path.write_text("\n".join(route.format(number) for number in range(1999)), encoding="utf-8")
    allowed = Allowed(settings.load(), "default")
    begun_s = process_time()
    routes = Routes.load(path)
    loaded_s = process_time()
    routes_command._list(routes, None, allowed)
    listed_s = process_time()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 1999 + 1 + 1999
    assert lines[0].split() == ["line", "topic", "operation", "workflow", "workflow", "id", "task", "queue"]
    assert lines[1999].split() == ["9991", "orders.kind1998", "start_workflow", "Order1998", "order-{order_id}-1998"]
    assert listed_s - loaded_s < loaded_s - begun_s
