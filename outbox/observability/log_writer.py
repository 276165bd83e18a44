"""Writes a process's log from a thread of its own, so that an unread pipe holds up nothing else.

Lines wait in a bounded queue. Those that do not fit are dropped and counted, and a line says how many once there is
room. A line that says why the process ends always fits.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

_MOST_BYTES = 4 << 20
"""Of lines that wait. It bounds the memory that a stuck reader costs."""


class LogWriter:
    """The way of log lines to one file descriptor. Every method may be called in any thread, and none raises."""

    def __init__(self, descriptor: int, say_dropped: Callable[[int], bytes], *, most_bytes: int = _MOST_BYTES) -> None:
        """`say_dropped` makes the line that says how many lines were dropped. The descriptor stays its owner's."""
        self._descriptor = descriptor
        self._say_dropped = say_dropped
        self._most_bytes = most_bytes
        self._change = Condition()
        """Guards what follows; notified of each line, and when all is written."""
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._writing = False
        self._unsaid = 0
        self._closed = False
        self.dropped = 0
        """Lines that were never written."""
        self._thread = Thread(target=self._run, name="outbox log", daemon=True)
        self._thread.start()

    def write(self, line: str | bytes, *, always: bool = False) -> None:
        """Have a line written soon. It is dropped if too much waits, but never with `always`."""
        data = line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace")
        with self._change:
            if not always and self._bytes + len(data) > self._most_bytes:
                self.dropped += 1
                self._unsaid += 1
                return
            self._lines.append(data)
            self._bytes += len(data)
            self._change.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is written, for this many seconds at most; return whether it is."""
        with self._change:
            return self._change.wait_for(lambda: not (self._lines or self._writing or self._unsaid), timeout_s)

    def close(self, timeout_s: float) -> None:
        """Flush, and end the thread once it comes back from what it writes."""
        self.flush(timeout_s)
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._lines or self._unsaid or self._closed)
                if not (self._lines or self._unsaid):
                    return
                batch, count, unsaid = b"".join(self._lines), len(self._lines), self._unsaid
                self._lines.clear()
                self._bytes, self._unsaid, self._writing = 0, 0, True
            written = self._put(batch + (self._say_dropped(unsaid) if unsaid else b""))
            with self._change:
                self._writing = False
                self.dropped += 0 if written else count
                self._change.notify_all()

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; return False if the reader has gone."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # another process has made the pipe non-blocking for all
                select.select([], [self._descriptor], [])
            except OSError:
                return False
        return True
