"""What the log says, and what it must never say."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest
from loguru import logger

from outbox import events, logs
from outbox.message import Message
from outbox.sink import Delivered, Rejected, Unavailable, Unknown

SECRET = "canary-of-the-payload"
MESSAGE = Message(
    UUID(int=1),
    1,
    "orders",
    None,
    f'{{"password": "{SECRET}"}}',
    f'{{"authorization": "{SECRET}"}}',
    None,
    1,
    0,
    0,
    0.0,
    7,
)
MANY = [MESSAGE]
SAMPLES: dict[str, Any] = {
    "messages": MANY,
    "message": MESSAGE,
    "settlements": [events.Settlement(MESSAGE, Delivered("w", "r"), 1.0, 0.5)],
    "reason": "rejected",
    "why": "hold",
}
OUTCOMES = {
    "Retried": Unknown("LOST", "no answer"),
    "Buried": Rejected("BAD", "too big"),
    "Held": Unavailable("DOWN", "refused"),
}


def sample(kind: type) -> Any:
    """An event of this type, filled with something."""
    values: dict[str, Any] = {}
    for name, form in get_type_hints(kind).items():
        if name == "outcome":
            values[name] = OUTCOMES[kind.__name__]
        elif form in (int, bool):
            values[name] = 2
        else:
            values[name] = SAMPLES.get(name, 1.5 if "float" in str(form) else "text")
    return kind(**values)


@pytest.fixture
def lines(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Any]:
    """A log of JSON lines, and what has been written to it."""
    logs.configure("TRACE", "json")
    yield lambda: [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]
    logger.remove()


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_without_payload_or_headers(kind: type, lines: Any) -> None:
    logs.EventLog()(sample(kind))
    [line] = lines()
    assert {"time", "level", "message"} <= line.keys()
    assert SECRET not in json.dumps(line)


def test_dead_letter_is_an_error_that_names_the_message_and_its_cause(lines: Any) -> None:
    logs.EventLog()(sample(events.Buried))
    [line] = lines()
    assert (line["level"], line["kind"], line["detail"]) == ("ERROR", "BAD", "too big")
    assert line["message_id"] == str(MESSAGE.message_id)


def test_level_bounds_what_is_written(lines: Any) -> None:
    logs.configure("WARNING", "json")
    logs.EventLog()(sample(events.Resumed))
    assert lines() == []


@pytest.mark.parametrize(("terminal", "form"), [(True, r"\S+ INFO    said n=1"), (False, r"\{.*\"n\":1\}")])
def test_lines_are_for_people_on_a_terminal_and_for_machines_elsewhere(
    terminal: bool, form: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    logs.configure("INFO", "auto")
    try:
        logger.bind(n=1).info("said")
    finally:
        logger.remove()
    written = re.sub("\x1b\\[[0-9]+m", "", capfd.readouterr().err)
    assert re.fullmatch(form + "\n", written)


def test_what_opentelemetry_complains_of_is_one_of_our_lines(lines: Any) -> None:
    logging.getLogger("opentelemetry.exporter").warning("no collector at %s", "there")
    logging.getLogger("opentelemetry.exporter").info("fine")
    [line] = lines()
    assert (line["level"], line["message"]) == ("WARNING", "no collector at there")


def test_braces_and_markup_in_data_are_written_as_they_are(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    logs.configure("INFO", "text")
    logs.EventLog()(events.SourceLost("listen", "<red>{oops}</red> {0}", 1.0))
    logger.remove()
    written = capfdbinary.readouterr().err.decode()
    assert "<red>{oops}</red> {0}" in written


def test_text_lines_hold_nothing_that_ends_them_or_controls_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("TRACE", "text")
    try:
        logger.bind(topic="a\n\x1b[31mb", plain="as it is").info("said")
    finally:
        logger.remove()
    [line] = capfd.readouterr().err.splitlines()
    assert "\x1b[31mb" not in line
    assert "plain=as it is" in line


def test_json_line_is_written_also_of_a_text_that_is_no_unicode(lines: Any) -> None:
    logger.bind(detail="lone \udc80").info("said")
    [line] = lines()
    assert line["detail"] == "lone \udc80"
