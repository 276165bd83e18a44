"""What is wrong with a file of routes is said at once, all of it, with lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.model.errors import ConfigurationError
from outbox_temporal.target.table import Routes
from outbox_temporal.target.toml_file import _lines, seconds

GOOD = 'topic = "t"\nworkflow = "W"\nworkflow_id = "x"\n'


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    """The file's faults, without its name."""
    path = tmp_path / "outbox.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError) as caught:
        Routes.load(path)
    assert not any("\n" in fault for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_every_fault_is_found_at_once_in_the_files_order(tmp_path: Path) -> None:
    text = """\
title = "x"
[defaults]
task_queu = "general"
run_timeout = "soon"

[[route]]
topic = "a"
workflow_id = "a-{b"
tpic = "x"
retry_policy = { maximum_attempts = "3", initial_interval_s = 3 }

[[route]]
workflow = "W"
topic = "a"
workflow_id = "a-{}"
memo = [
  1,
]
arguments = "all"

[[route]]
topic = "a*"
operation = "signal"
[route.memo]
big = 123456789012345678901234567890
b = "{key.x}"
"""
    found = faults(tmp_path, text)
    lines = [int(fault.split(":")[0]) for fault in found]
    assert lines == [1, 3, 4, 6, 8, 9, 10, 10, 14, 15, 16, 19, 21, 22, 23, 25, 26]
    assert "did you mean task_queue?" in found[1]
    assert "needs workflow" in found[3]
    assert "did you mean topic?" in found[5]
    assert "did you mean initial_interval?" in found[6]
    assert "retry_policy.maximum_attempts is '3'" in found[7]
    assert "the topic 'a' has a route already, in line 6" in found[8]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "there is no [[route]]"),
        ("a = 1\n[[route]\n", 2, "Expected ']]'"),
        ("a = 1\n\nb", 3, "Expected '='"),
        ("a = 1\na = 2\n", 2, "Cannot overwrite a value"),
        (b"# fine\n# \xff\n", 2, "is not UTF-8"),
        ("\n[route]\n" + GOOD, 2, "write [[route]], with two brackets"),
        ("route = 5", 1, "write [[route]]"),
        ("[[routes]]\n" + GOOD, 1, "did you mean route?"),
        ("defaults = 5\n[[route]]\n" + GOOD, 1, "write [defaults]"),
        ("[defaults]\nworkflow_id = 'x'\n[[route]]\n" + GOOD, 2, "workflow_id is not known here"),
        ("[[route]]\nworkflow = 'W'\nworkflow_id = 'x'", 1, "topic is missing"),
        ("[[route]]\ntopic = 'a*b'\nworkflow = 'W'\nworkflow_id = 'x'", 2, "* must be at the end"),
        ("[[route]]\ntopic = ''\nworkflow = 'W'\nworkflow_id = 'x'", 2, "topic is ''"),
        (f"[[route]]\ntopic = '{'x' * 256}'\nworkflow = 'W'\nworkflow_id = 'x'", 2, "never reached"),
        ("[[route]]\n" + GOOD + "run_timeout_s = 5", 5, "did you mean run_timeout?"),
        ("[[route]]\n" + GOOD + "run_timeout = true", 5, "write a duration"),
        ("[[route]]\n" + GOOD + "run_timeout = -1", 5, "greater than or equal to 0"),
        ("[[route]]\n" + GOOD + "run_timeout = inf", 5, "run_timeout is inf"),
        ("[[route]]\n" + GOOD + "operation = 'signal_workflow'", 1, "signal_workflow needs signal"),
        ("[[route]]\n" + GOOD + "operation = 'store'", 5, "operation is 'store': use start_workflow, "),
        ("[[route]]\n" + GOOD + "operation = 'store'", 5, "terminate_workflow, record"),
        ("[[route]]\noperation = 'record'", 1, "topic is missing"),
        ("[[route]]\ntopic = 'a'\noperation = 'record'\nrun_timeout = 'soon'", 4, "write a duration"),
        ("[[route]]\n" + GOOD + "id_conflict_policy = 'terminate_existing'", 1, "terminate_existing contradicts"),
        ("[[route]]\n" + GOOD + "reason = '{a:3}'", 5, "takes no format"),
        ("[[route]]\n" + GOOD + "reason = '{a!r}'", 5, "takes no format"),
        ("[[route]]\n" + GOOD + "reason = '{a[0]}'", 5, "names no field"),
        ("[[route]]\n" + GOOD + "reason = 'a}'", 5, "reason: Single '}'"),
        ("[[route]]\n" + GOOD + "reason = '{headers}'", 5, "write {headers.name}"),
        (
            "[[route]]\n" + GOOD + "[route.retry_policy]\nmaximum_attempts = -1",
            6,
            "retry_policy.maximum_attempts is -1",
        ),
        ("[[route]]\n" + GOOD + "[route.retry_policy]\nattempts = 1", 6, "attempts is not known here"),
        (
            "[[route]]\n" + GOOD + "retry_policy = { maximum_interval = '500ms' }",
            5,
            "the maximum interval is shorter than the initial one, which is 1 s",
        ),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str | bytes, line: int, says: str) -> None:
    [fault] = faults(tmp_path, text)
    assert fault.startswith(f"{line}: ")
    assert says in fault


def test_a_default_is_faulty_once_not_in_every_route(tmp_path: Path) -> None:
    route = '[[route]]\ntopic = "{}"\nworkflow = "W"\nworkflow_id = "x"\n'
    text = "[defaults]\non_duplicate = 'no'\n" + route.format("a") + route.format("b")
    [fault] = faults(tmp_path, text)
    assert fault.startswith("2: on_duplicate is 'no'")


def test_misspelt_names_of_every_retry_policy_are_found_at_once(tmp_path: Path) -> None:
    route = '[[route]]\ntopic = "{}"\nworkflow = "W"\nworkflow_id = "x"\n'
    text = (
        "[defaults]\nretry_policy = { maximum_atempts = 3 }\n"
        + route.format("a")
        + "[route.retry_policy]\ninitial_intervall = '1s'\nmaximum_attempts = 3\n"
        + route.format("b")
        + "retry_policy = { backof_coefficient = 2.0 }\n"
    )
    assert faults(tmp_path, text) == [
        "2: maximum_atempts is not known here: did you mean maximum_attempts?",
        "8: initial_intervall is not known here: did you mean initial_interval?",
        "14: backof_coefficient is not known here: did you mean backoff_coefficient?",
    ]


def test_a_default_may_need_the_route_to_make_sense(tmp_path: Path) -> None:
    path = tmp_path / "outbox.toml"
    text = "[defaults]\nid_conflict_policy = 'terminate_existing'\n[[route]]\n" + GOOD
    path.write_text(text + "id_reuse_policy = 'allow_duplicate'\n")
    [route] = Routes.load(path).all
    assert route.target.id_conflict_policy == "terminate_existing"
    [fault] = faults(tmp_path, text)
    assert fault.startswith("3: terminate_existing")


def test_lines_are_found_behind_values_that_span_several(tmp_path: Path) -> None:
    text = '''\
# [[route]] in a comment
a = """
[[route]]
b = 1
"""
c.d = [
  "x", # ]
  { y = 1 },
]
[[route]]
topic = "#"
[route.memo]
x = 1
[[route]]
[route.memo."with.dot"]
y = \'\'\'
z = 1\'\'\'
last = 2
'''
    lines = _lines(text)
    assert lines["a",] == 2
    assert lines["c", "d"] == 6
    assert lines["route", 0] == 10
    assert lines["route", 0, "topic"] == 11
    assert lines["route", 0, "memo", "x"] == 13
    assert lines["route", 1] == 14
    assert lines["route", 1, "memo", "with.dot"] == 15
    assert lines["route", 1, "memo", "with.dot", "last"] == 18
    assert ("b",) not in lines
    assert len(lines) == 1 + 1 + 2 + 2 + 2 + 1 + 2 + 3


@pytest.mark.parametrize(
    ("written", "expected_s"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("1.5s", 1.5), ("1m1ms", 60.001)]
    + [(90, 90), (0.25, 0.25), ("0s", 0)],
)
def test_a_duration_is_read_as_people_write_it(written: object, expected_s: float) -> None:
    assert seconds(written) == pytest.approx(expected_s)


@pytest.mark.parametrize("written", ["", "5", "5 m", "m", "-5s", "5s1", "1.h", True, [1], "1y", "٣s", "5s "])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="write a duration"):
        seconds(written)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_the_units_of_a_duration_add_up(d: int, h: int, m: int, s: int, ms: int) -> None:
    assert seconds(f"{d}d{h}h{m}m{s}s{ms}ms") == pytest.approx(d * 86_400 + h * 3600 + m * 60 + s + ms / 1000)


def test_memo_of_the_outbox_is_refused_with_its_line(tmp_path: Path) -> None:
    text = (
        '[[route]]\ntopic = "a"\nworkflow = "W"\nworkflow_id = "x"\n[route.memo]\noutbox_message_id = "{payload.id}"\n'
    )
    assert faults(tmp_path, text) == ["6: memo.outbox_message_id is the outbox's own: choose another name"]
