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

from outbox.model import events
from outbox.model.message import Message
from outbox.model.sink import Delivered, Rejected, Unavailable, Unknown
from outbox.observability import logs
from outbox.observability.event_log import EventLog
from tests.support.eventually import eventually

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

    def written() -> list[Any]:
        logs.flush()
        return [json.loads(line) for line in capfdbinary.readouterr().err.splitlines()]

    yield written
    logs.unconfigure()


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_every_event_is_one_line_without_payload_or_headers(kind: type, lines: Any) -> None:
    EventLog()(sample(kind))
    [line] = lines()
    assert {"time", "level", "message"} <= line.keys()
    assert SECRET not in json.dumps(line)


def test_dead_letter_is_an_error_that_names_the_message_and_its_cause(lines: Any) -> None:
    EventLog()(sample(events.Buried))
    [line] = lines()
    assert (line["level"], line["kind"], line["detail"]) == ("ERROR", "BAD", "too big")
    assert line["message_id"] == str(MESSAGE.message_id)


def test_level_bounds_what_is_written(lines: Any) -> None:
    logs.configure("WARNING", "json")
    EventLog()(sample(events.Resumed))
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
        logs.unconfigure()
    written = re.sub("\x1b\\[[0-9]+m", "", capfd.readouterr().err)
    assert re.fullmatch(form + "\n", written)


def test_what_opentelemetry_complains_of_is_one_of_our_lines(lines: Any) -> None:
    logging.getLogger("opentelemetry.exporter").warning("no collector at %s", "there")
    logging.getLogger("opentelemetry.exporter").info("fine")
    [line] = lines()
    assert (line["level"], line["message"]) == ("WARNING", "no collector at there")


def test_braces_and_markup_in_data_are_written_as_they_are(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    logs.configure("INFO", "text")
    EventLog()(events.SourceLost("listen", "<red>{oops}</red> {0}", 1.0))
    logs.unconfigure()
    written = capfdbinary.readouterr().err.decode()
    assert "<red>{oops}</red> {0}" in written


def test_text_lines_hold_nothing_that_ends_them_or_controls_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("TRACE", "text")
    try:
        logger.bind(topic="a\n\x1b[31mb", plain="as it is").info("said")
    finally:
        logs.unconfigure()
    [line] = capfd.readouterr().err.splitlines()
    assert "\x1b[31mb" not in line
    assert "plain=as it is" in line


def test_json_line_is_written_also_of_a_text_that_is_no_unicode(lines: Any) -> None:
    logger.bind(detail="lone \udc80").info("said")
    [line] = lines()
    assert line["detail"] == "lone \udc80"


async def test_of_many_failures_the_first_is_written_and_then_each_second_how_many_more(lines: Any) -> None:
    log, count = EventLog(), 400
    for number in range(count):
        log(sample(events.Retried)._replace(message=MESSAGE._replace(message_id=UUID(int=number))))
    log(sample(events.Retried)._replace(message=MESSAGE._replace(topic="mail")))
    reported: list[Any] = []

    async def look() -> list[Any]:
        reported.extend(lines())
        return reported

    await eventually(look, lambda found: "more" in str(found))
    log.close()
    assert lines() == []
    retried = [line for line in reported if line["message"] == "message failed, will retry"]
    assert [(line["topic"], line.get("more")) for line in retried] == [
        ("orders", None),
        ("mail", None),
        ("orders", 399),
    ]
    assert retried[-1]["latest"] == str(UUID(int=count - 1))


def test_numbers_that_are_not_reported_yet_are_reported_at_the_end(lines: Any) -> None:
    log = EventLog()
    for _ in range(5):
        log(sample(events.Buried))
    log.close()
    first, more = lines()
    assert "more" not in first
    assert (more["more"], more["level"], more["message"]) == (4, "ERROR", first["message"])


def test_topics_without_number_are_counted_together(lines: Any) -> None:
    log, count = EventLog(), 1000
    for number in range(count):
        log(sample(events.Retried)._replace(message=MESSAGE._replace(topic=f"topic-{number}")))
    log.close()
    reported = lines()
    assert len(reported) < 100
    assert sum(line.get("more", 1) for line in reported) == count


def test_the_reason_of_an_end_has_the_form_of_the_log(lines: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    logs.say_end("the port is taken", 2)
    assert logs.say_crash(LookupError("gone"))
    end, crash = lines()
    assert (end["level"], end["error"], end["exit_code"]) == ("CRITICAL", "the port is taken", 2)
    assert crash["error"] == "LookupError: gone"
    assert "LookupError" in crash["traceback"]
    logs.configure("INFO", "text")
    logs.say_end("the port is taken", 2)
    logs.unconfigure()
    assert capfdbinary.readouterr().err == b"outbox: the port is taken\n"


def test_what_asyncio_complains_of_is_one_of_our_lines(lines: Any) -> None:
    logging.getLogger("asyncio").error("a task failed")
    [line] = lines()
    assert (line["level"], line["message"]) == ("ERROR", "a task failed")


@pytest.mark.parametrize("kind", [events.Held, events.DatabaseLost])
def test_a_fault_that_begins_is_a_warning_and_one_that_lasts_is_an_error(kind: type, lines: Any) -> None:
    lasted = "held_s" if kind is events.Held else "lost_s"
    log = EventLog()
    log(sample(kind)._replace(**{lasted: 0.0}))
    log(sample(kind)._replace(**{lasted: 31.4}))
    begun, lasting = lines()
    assert (begun["level"], lasting["level"], lasting[lasted]) == ("WARNING", "ERROR", 31)
    assert begun["message"] != lasting["message"]
