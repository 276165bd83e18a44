"""Turns events into log lines: the one place that chooses words and levels.

Messages are constant and their data are bound fields, so that lines can be counted and searched. Payloads never appear.
"""

from __future__ import annotations

from functools import singledispatchmethod

from loguru import logger

from outbox.model import events
from outbox.model.message import Message
from outbox.observability.repeated_lines import Kind, RepeatedLines

_DISCARDED = "message expired and was discarded"


class EventLog:
    """A subscriber of the event stream that writes log lines.

    Events of single messages may come by the hundred each second. Then the first line of each kind is written, and
    once a second how many more there were.
    """

    def __init__(self) -> None:
        self._repeats = RepeatedLines()

    def close(self) -> None:
        """Write the numbers that are not written yet."""
        self._repeats.close()

    def __call__(self, event: events.Event) -> None:
        """Write the line for one event."""
        self.log(event)

    def _message(self, level: str, said: str, message: Message, kind: str, **fields: object) -> None:
        """Write a line about one message, or count it if such a line was written just now."""
        identity = {"message_id": str(message.message_id), "topic": message.topic}

        def first() -> None:
            logger.bind(**identity, kind=kind, **fields).log(level, said)

        def more(number: int, counted: Kind) -> None:
            shown = {"topic": message.topic, "kind": kind} if len(counted) > 1 else {"kind": "several"}
            logger.bind(more=number, **shown, latest=identity["message_id"]).log(level, said)

        self._repeats.say((said, kind, message.topic), first, more)

    @singledispatchmethod
    def log(self, event: events.Event) -> None:
        """Any event without words of its own: its name and its plain fields, for debugging."""
        shown = {name: value for name, value in event._asdict().items() if isinstance(value, str | int | float | bool)}
        logger.bind(**shown).debug(type(event).__name__)

    @log.register
    def _(self, event: events.WorkerStarted) -> None:
        logger.bind(**event._asdict()).info("worker started")

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
        self._message(
            "WARNING",
            "message failed, will retry",
            event.message,
            event.outcome.kind,
            detail=event.outcome.detail,
            retry_in_s=round(event.delay_s, 1),
            attempt=event.message.attempts + event.counted,
            counted=event.counted,
        )

    @log.register
    def _(self, event: events.Buried) -> None:
        discarded = event.reason == "discarded"
        level, said = ("INFO", _DISCARDED) if discarded else ("ERROR", "message became a dead letter")
        self._message(level, said, event.message, event.outcome.kind, reason=event.reason, detail=event.outcome.detail)

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
        logger.bind(error=event.error).warning("presence not shown, rescue waits for the leases")

    @log.register
    def _(self, event: events.SettleRefused) -> None:
        self._message("ERROR", "database refused to settle a message", event.message, "refused", error=event.error)

    @log.register
    def _(self, event: events.DeliveryStuck) -> None:
        after_s = round(event.after_s, 1)
        self._message("ERROR", "sink overran its time-out", event.message, "stuck", after_s=after_s)

    @log.register
    def _(self, event: events.Held) -> None:
        bound = logger.bind(kind=event.outcome.kind, detail=event.outcome.detail)
        if event.held_s:
            bound.bind(held_s=round(event.held_s)).error("sink still unavailable, holding")
        else:
            bound.warning("sink unavailable, holding")

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
    def _(self, event: events.CopyFound) -> None:
        logger.bind(detail=event.detail).error("this database is a copy: everything is paused until outbox adopt")

    @log.register
    def _(self, event: events.CopyAdopted) -> None:
        logger.bind(was=event.was).info("the database was adopted: claiming")

    @log.register
    def _(self, event: events.DatabaseLost) -> None:
        bound = logger.bind(doing=event.doing, error=event.error)
        if event.lost_s:
            bound.bind(lost_s=round(event.lost_s)).error("database still lost, trying again")
        else:
            bound.warning("database lost, trying again")

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


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
