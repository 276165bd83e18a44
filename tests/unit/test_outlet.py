"""The log's writer: it holds up no caller, loses no count, and gives back what waits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from outbox.observability.log_writer import LogWriter

WAIT_S = 15.0


class Pipe:
    """A pipe. `full` ones take nothing until they are read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def fill(self) -> None:
        """Leave no room in it."""
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"\n" * 4096)
        os.set_blocking(self.writing, True)

    def read(self, outlet: LogWriter) -> list[bytes]:
        """All lines, once the outlet is closed."""
        reader = Reader(self.reading)
        outlet.close(WAIT_S)
        os.close(self.writing)
        reader.join(WAIT_S)
        assert not reader.is_alive(), reader.seen[-200:]
        return [line for line in reader.seen.splitlines() if line]

    def close(self) -> None:
        for end in (self.reading, self.writing):
            with suppress(OSError):
                os.close(end)


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.seen = b""
        self.start()

    def run(self) -> None:
        while data := os.read(self._descriptor, 1 << 16):
            self.seen += data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def said(lines: int) -> bytes:
    return f"{lines} dropped\n".encode()


def test_no_writer_waits_for_a_reader_and_the_lost_lines_are_counted_and_reported(pipe: Pipe) -> None:
    pipe.fill()
    outlet, line, count = LogWriter(pipe.writing, said, most_bytes=10_000), b"x" * 99 + b"\n", 5_000
    for _ in range(count):  # more than the queue holds: this ends only if no write waits
        outlet.write(line)
    assert outlet.dropped >= count - 2 * 10_000 // len(line)
    assert not outlet.flush(0.05)
    lines = pipe.read(outlet)
    reported = [int(line.split()[0]) for line in lines if line.endswith(b"dropped")]
    assert sum(reported) == outlet.dropped
    assert len(lines) - len(reported) + outlet.dropped == count


def test_the_reason_of_an_end_is_kept_when_all_else_is_dropped(pipe: Pipe) -> None:
    pipe.fill()
    outlet = LogWriter(pipe.writing, said, most_bytes=1_000)
    for _ in range(2_000):
        outlet.write(b"x" * 99 + b"\n")
    outlet.write("the end\n", always=True)
    assert b"the end" in pipe.read(outlet)


def test_a_pipe_that_another_process_made_non_blocking_takes_every_line(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    outlet = LogWriter(pipe.writing, said)
    for number in range(20_000):
        outlet.write(f"{number:09}\n")
    assert [int(line) for line in pipe.read(outlet)] == list(range(20_000))


def test_a_reader_that_went_away_is_no_error_and_its_lines_count_as_dropped(pipe: Pipe) -> None:
    outlet = LogWriter(pipe.writing, said)
    os.close(pipe.reading)
    outlet.write("not read\n")
    assert outlet.flush(WAIT_S)
    assert outlet.dropped == 1
    outlet.close(WAIT_S)


def test_close_writes_what_waits_and_ends_the_thread(pipe: Pipe) -> None:
    outlet = LogWriter(pipe.writing, said)
    outlet.write("a\n")
    outlet.write("b \udc80\n")
    outlet.close(WAIT_S)
    assert os.read(pipe.reading, 100) == b"a\nb \\udc80\n"
    outlet._thread.join(WAIT_S)
    assert not outlet._thread.is_alive()
