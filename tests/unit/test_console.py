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


def test_progress_without_a_terminal_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.cli.progress.monotonic", iter((0.0, 4.0, 5.0, 5.0, 9.0, 10.5, 10.5)).__next__)
    with progress("messages", 50) as advance:
        for _ in range(4):
            advance(10)
    assert capsys.readouterr().err == "outbox: messages: 20 of 50\noutbox: messages: 40 of 50\n"
