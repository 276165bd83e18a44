"""Rich's console, on which no text controls the terminal but rich's own styles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich import console
from rich.segment import Segment

from outbox.model.plain_text import plain


class Console(console.Console):
    """Shows every text as `plain` makes it, wherever it is."""

    @property
    def file(self) -> IO[str]:
        """The stream itself. While a progress bar runs, rich's proxy is in front of ours, and rich skips only one."""
        found: IO[str] = super().file
        while (inner := getattr(found, "rich_proxied_file", None)) is not None:
            found = inner
        return found

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def render(
        self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich renders it; codes that come with the text are shown, not obeyed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
