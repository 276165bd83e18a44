"""Rich's console on standard error that escapes control characters."""

from __future__ import annotations

import io
import sys

import pytest

from outbox.cli.progress import progress
from outbox.model.plain_text import PlainStream


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_progress_bar_moves_the_cursor_and_other_text_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", PlainStream(terminal))
    with progress("messages", 2) as advance:
        advance(1)
        sys.stderr.write("evil \x1b[2J\n")
        advance(1)
    shown = terminal.getvalue()
    assert "\x1b[2K" in shown
    assert "\\x1b[2K" not in shown
    assert "evil" in shown
    assert "\x1b[2J" not in shown
    assert "2/2" in shown


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 1.0, 5.5, 5.5, 6.0])
    monkeypatch.setattr("outbox.cli.progress.monotonic", lambda: next(times))
    with progress("rows", 3) as advance:
        for _ in range(3):
            advance(1)
    assert capsys.readouterr().err == "outbox: rows: 2 of 3\n"
