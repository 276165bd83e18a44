"""Text for a terminal. Names and errors come from producers and servers, and may hold codes that control a terminal."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # a health check loads this, and is spared the module typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO


def plain(text: str) -> str:
    """A text in which everything but line breaks can be seen; a control character is written as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class PlainStream:
    """A text stream that writes plain text only. Rich writes its colours past it."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """The name by which rich finds the stream itself."""

    def write(self, text: str) -> int:
        """Write what can be seen of a text."""
        return self.rich_proxied_file.write(plain(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write what can be seen of texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the stream's
        return getattr(self.rich_proxied_file, name)


def guard() -> None:
    """Let this process's standard output and errors be plain text."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, PlainStream(getattr(sys, name)))
