"""What the tests share: events to wait for, and a scripted sink."""

from tests.support.event_log import EventLog
from tests.support.sinks import FakeSink, NullSink, null_sink

__all__ = ["EventLog", "FakeSink", "NullSink", "null_sink"]
