"""Where this process's log goes, and in which form: text for people, or one JSON object a line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from traceback import format_exception
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger

from outbox.model.json_output import json_output
from outbox.observability.log_writer import LogWriter

if TYPE_CHECKING:
    from loguru import Message as LogLine
    from loguru import Record

_DROPPED = "log lines dropped, standard error was not read"
_TEXT = "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <7}</level> {message}<dim>{extra[tail]}</dim>\n"


_FLUSH_S = 2.0
"""How long the end of a process waits for its last lines to be taken."""


class _Way:
    """Where this process's log goes, once that is decided."""

    outlet: LogWriter | None = None
    as_text = True


def configure(level: str, style: Literal["auto", "text", "json"]) -> None:
    """Send this process's log to standard error, as text for people or one JSON object a line for machines.

    A thread writes it: no caller waits for a reader.
    """
    unconfigure()
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    outlet = LogWriter(sys.stderr.fileno(), _dropped_as_text if as_text else _dropped_as_json)
    _Way.outlet, _Way.as_text = outlet, as_text
    if as_text:
        logger.add(outlet.write, level=level, format=_text, colorize=_coloured(), diagnose=False)
    else:
        logger.add(lambda line: _write_json(line, outlet), level=level, format="{message}", diagnose=False)
    pass_on("opentelemetry", least=logging.WARNING)
    pass_on("asyncio", least=logging.WARNING)


def unconfigure() -> None:
    """Write what waits, and log nothing any more."""
    logger.remove()
    if _Way.outlet is not None:
        _Way.outlet.close(_FLUSH_S)
        _Way.outlet = None


def flush() -> None:
    """Wait until all lines are written, but no longer than two seconds: the reader may be stuck."""
    if _Way.outlet is not None:
        _Way.outlet.flush(_FLUSH_S)


def dropped() -> int:
    """How many lines were never written, because standard error was not read."""
    return 0 if _Way.outlet is None else _Way.outlet.dropped


def say_end(line: str, exit_code: int) -> None:
    """Say why this process ends, in the form that its log has; as text where it has none yet."""
    if _Way.outlet is None:
        sys.stderr.write(f"outbox: {line}\n")
    elif _Way.as_text:
        _Way.outlet.write(f"outbox: {line}\n", always=True)
    else:
        logger.bind(error=line, exit_code=exit_code).critical("cannot go on")


def say_crash(error: BaseException) -> bool:
    """Report an unexpected error, in the form that the log has; return False if there is no log yet."""
    if _Way.outlet is None:
        return False
    text = "".join(format_exception(error))
    if _Way.as_text:
        _Way.outlet.write(text, always=True)
    else:
        logger.bind(error=f"{type(error).__name__}: {error}", traceback=text, exit_code=1).critical("crashed")
    return True


def pass_on(
    library: str,
    *,
    least: int = logging.DEBUG,
    context: Callable[[logging.LogRecord], Mapping[str, object]] = lambda _: {},
) -> None:
    """Have what a library logs written as ours, with what `context` finds in a record as bound fields."""
    source = logging.getLogger(library)
    source.handlers = [_Passing(context)]
    source.propagate = False
    source.setLevel(least)


class _Passing(logging.Handler):
    """Hands a standard record to loguru."""

    def __init__(self, context: Callable[[logging.LogRecord], Mapping[str, object]]) -> None:
        super().__init__()
        self._context = context

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.bind(**self._context(record)).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def warn_of(doubts: Iterable[str]) -> None:
    """Write a line for each setting that works, and should not be as it is."""
    for doubt in doubts:
        logger.bind(detail=doubt).warning("doubtful setting")


def _coloured() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _text(record: Record) -> str:
    shown = {name: value for name, value in record["extra"].items() if name != "tail"}
    record["extra"]["tail"] = "".join(f" {name}={_visible(value)}" for name, value in shown.items())
    return _TEXT + ("{exception}\n" if record["exception"] else "")


def _visible(value: object) -> str:
    """A value's text, in which nothing ends the line or controls the terminal."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _write_json(line: LogLine, outlet: LogWriter) -> None:
    record = line.record
    entry: dict[str, Any] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        **record["extra"],
    }
    if record["exception"] is not None:
        entry["exception"] = str(record["exception"].value)
    outlet.write(json_output(entry), always=record["level"].no >= logging.CRITICAL)


def _dropped_as_json(lines: int) -> bytes:
    now = datetime.now().astimezone().isoformat()
    return json_output({"time": now, "level": "WARNING", "message": _DROPPED, "lines": lines})


def _dropped_as_text(lines: int) -> bytes:
    return f"{datetime.now().astimezone():%H:%M:%S} WARNING {_DROPPED} lines={lines}\n".encode()
