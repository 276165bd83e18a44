"""Modules that a setting names: each fault in them is one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.config.reference import load_reference
from outbox.config.sink_reference import load_sink
from outbox.model.errors import ConfigurationError
from outbox_temporal.sink import settings

CONVERTER, CODEC = "OUTBOX_TEMPORAL_DATA_CONVERTER", "OUTBOX_TEMPORAL_PAYLOAD_CODEC"


def module(path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """A reference to x of a new module."""
    monkeypatch.syspath_prepend(path)
    name = f"module_{abs(hash(path))}"
    (path / f"{name}.py").write_text(code)
    return f"{name}:x"


@pytest.mark.parametrize(
    ("code", "fault"),
    {
        "x = (": "importing it raised SyntaxError: '(' was never closed",
        "x = 1 / 0": "importing it raised ZeroDivisionError: division by zero (",
        "raise RuntimeError('two\\nlines')": "importing it raised RuntimeError: two lines (",
        "import sys; sys.exit(3)": "importing it raised SystemExit: 3 (",
        "import not_there": "No module named 'not_there': install it, or add its folder to PYTHONPATH",
        "from json import not_there": "importing it raised ImportError: cannot import name 'not_there'",
        "y = 1": "has no attribute 'x'",
    }.items(),
)
def test_module_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, fault: str
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as raised:
        load_reference(module(tmp_path, monkeypatch, code))
    assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("code", "fault"),
    {
        "x = (": " is '{}': importing it raised SyntaxError: ",
        "x = 1": " names no temporalio.converter.",
        "def x(): return 1": " names no temporalio.converter.",
        "def x(): raise KeyError('k')": ": calling what it names raised KeyError: 'k' (",
        "class x:\n    def __init__(self, key): pass": ": calling what it names raised TypeError: ",
    }.items(),
)
@pytest.mark.parametrize("setting", [CONVERTER, CODEC])
def test_converter_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, code: str, fault: str
) -> None:
    reference = module(tmp_path, monkeypatch, code)
    monkeypatch.setenv(setting, reference)
    with pytest.raises(ConfigurationError) as raised:
        settings.load().converter()
    [line] = raised.value.faults
    assert line.startswith(setting + fault.format(reference))


def test_sink_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = module(tmp_path, monkeypatch, "x = (")
    with pytest.raises(ConfigurationError, match=f"^OUTBOX_SINK is '{reference}': importing it raised SyntaxError: "):
        load_sink(reference)
