"""Turns events into log lines: the one place that chooses words and levels.

Messages are constant and their data are bound fields, so that lines can be counted and searched. Payloads never appear.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any, Literal

import orjson
from loguru import logger

from outbox import events
from outbox.message import Message

if TYPE_CHECKING:
    from loguru import Message as LogLine
    from loguru import Record

_TEXT = "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <7}</level> {message}<dim>{extra[tail]}</dim>\n"


def configure(level: str, style: Literal["auto", "text", "json"]) -> None:
    """Send this process's log to standard error, as text for people or one JSON object a line for machines."""
    logger.remove()
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    if as_text:
        logger.add(sys.stderr, level=level, format=_text, colorize=None, diagnose=False)
    else:
        logger.add(_write_json, level=level, format="{message}", diagnose=False)
    pass_on("opentelemetry", least=logging.WARNING)


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


def _text(record: Record) -> str:
    shown = {name: value for name, value in record["extra"].items() if name != "tail"}
    record["extra"]["tail"] = "".join(f" {name}={_visible(value)}" for name, value in shown.items())
    return _TEXT + ("{exception}\n" if record["exception"] else "")


def _visible(value: object) -> str:
    """A value's text, in which nothing ends the line or controls the terminal."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _write_json(line: LogLine) -> None:
    record = line.record
    entry: dict[str, Any] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        **record["extra"],
    }
    if record["exception"] is not None:
        entry["exception"] = str(record["exception"].value)
    try:
        text = orjson.dumps(entry, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a text that is no Unicode, from some other program's error
        text = json.dumps(entry, default=str).encode() + b"\n"
    sys.stderr.buffer.write(text)
    sys.stderr.buffer.flush()


class EventLog:
    """A subscriber of the event stream that writes log lines."""

    def __call__(self, event: events.Event) -> None:
        """Write the line for one event."""
        self.log(event)

    @singledispatchmethod
    def log(self, event: events.Event) -> None:
        """Any event without words of its own: its name and its plain fields, for debugging."""
        shown = {name: value for name, value in event._asdict().items() if isinstance(value, str | int | float | bool)}
        logger.bind(**shown).debug(type(event).__name__)

    @log.register
    def _(self, event: events.WorkerStarted) -> None:
        logger.bind(worker=event.worker, schema=event.schema).info("worker started")

    @log.register
    def _(self, event: events.Claimed) -> None:
        logger.bind(messages=len(event.messages), took_ms=_ms(event.took_s)).debug("claimed")

    @log.register
    def _(self, event: events.Completed) -> None:
        slowest_s = max(settlement.latency_s for settlement in event.settlements)
        logger.bind(messages=len(event.settlements), took_ms=_ms(event.took_s), latency_ms=_ms(slowest_s)).debug(
            "completed"
        )

    @log.register
    def _(self, event: events.Retried) -> None:
        bound = _of(event.message).bind(
            kind=event.outcome.kind, detail=event.outcome.detail, retry_in_s=round(event.delay_s, 1)
        )
        bound.bind(attempt=event.message.attempts + event.counted, counted=event.counted).warning(
            "message failed, will retry"
        )

    @log.register
    def _(self, event: events.Buried) -> None:
        bound = _of(event.message).bind(reason=event.reason, kind=event.outcome.kind, detail=event.outcome.detail)
        if event.reason == "discarded":
            bound.info("message expired and was discarded")
        else:
            bound.error("message became a dead letter")

    @log.register
    def _(self, event: events.Released) -> None:
        logger.bind(messages=len(event.messages), why=event.why).debug("released")

    @log.register
    def _(self, event: events.LeaseLost) -> None:
        logger.bind(
            messages=len(event.messages), first=str(event.messages[0].message_id), certain=event.certain
        ).warning("lease lost before settling, nothing was overwritten")

    @log.register
    def _(self, event: events.Rescued) -> None:
        logger.bind(worker=event.worker, messages=event.leases).warning("worker died, its leases are ended")

    @log.register
    def _(self, event: events.PresenceShown) -> None:
        logger.bind(worker_id=event.worker_id).debug("presence shown")

    @log.register
    def _(self, event: events.PresenceLost) -> None:
        logger.bind(error=event.error).warning("presence not shown, only leases tell of this worker's death")

    @log.register
    def _(self, event: events.SettleRefused) -> None:
        _of(event.message).bind(error=event.error).error("database refused to settle a message")

    @log.register
    def _(self, event: events.DeliveryStuck) -> None:
        _of(event.message).bind(after_s=round(event.after_s, 1)).error("sink overran its time-out")

    @log.register
    def _(self, event: events.Held) -> None:
        logger.bind(kind=event.outcome.kind, detail=event.outcome.detail).warning("sink unavailable, holding")

    @log.register
    def _(self, event: events.Resumed) -> None:
        logger.bind(held_s=round(event.held_s, 2)).info("sink available again, resumed")

    @log.register
    def _(self, event: events.PaceChanged) -> None:
        rate = None if event.rate is None else round(event.rate, 1)
        logger.bind(messages_per_s=rate, cause=event.cause).warning("pace changed")

    @log.register
    def _(self, event: events.SlotsChanged) -> None:
        logger.bind(slots=event.slots, of=event.of).log(
            "INFO" if event.slots == event.of else "WARNING", "deliveries in flight changed after time-outs"
        )

    @log.register
    def _(self, event: events.SourceReady) -> None:
        logger.bind(source=event.source).info("wake-up source subscribed")

    @log.register
    def _(self, event: events.SourceLost) -> None:
        logger.bind(source=event.source, error=event.error, retry_in_s=round(event.retry_in_s, 1)).warning(
            "wake-up source lost, polling meanwhile"
        )

    @log.register
    def _(self, event: events.SourceDegraded) -> None:
        logger.bind(source=event.source, silent_s=event.silent_s).warning(
            "wake-up source missed messages, polling meanwhile"
        )

    @log.register
    def _(self, event: events.SourceRestored) -> None:
        logger.bind(source=event.source).info("wake-up source trusted again")

    @log.register
    def _(self, event: events.ModeChanged) -> None:
        logger.bind(mode=event.mode, sources=",".join(event.sources), why=event.why).info("wake-up mode changed")

    @log.register
    def _(self, event: events.DatabaseLost) -> None:
        logger.bind(doing=event.doing, error=event.error).warning("database lost, trying again")

    @log.register
    def _(self, event: events.DatabaseRestored) -> None:
        logger.bind(doing=event.doing, lost_s=round(event.lost_s, 2)).info("database restored")

    @log.register
    def _(self, event: events.MaintenanceFailed) -> None:
        logger.bind(duty=event.duty, error=event.error).warning("maintenance failed, will try again")

    @log.register
    def _(self, event: events.DrainStarted) -> None:
        logger.bind(in_flight=event.in_flight).info("draining")

    @log.register
    def _(self, event: events.Drained) -> None:
        logger.bind(took_s=round(event.took_s, 2), abandoned=event.abandoned).info("drained")


def _of(message: Message) -> Any:  # noqa: ANN401 - loguru exports its Logger type to stubs only
    """A logger with a message's identity bound."""
    return logger.bind(message_id=str(message.message_id), topic=message.topic)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
