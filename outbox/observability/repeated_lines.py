"""Bounds how much a fault of many messages writes: the first line of its kind, then each second how many more.

No message is left out of the counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

_EVERY_S = 1.0
_KINDS = 64
"""Kinds that are counted separately. Beyond that only the first word counts, because producers choose topics."""
Kind = tuple[str, ...]


@dataclass(slots=True)
class _Counted:
    more: int
    write: Callable[[int, Kind], None]


class RepeatedLines:
    """Says the first of each kind at once, and the number of those that follow once a second, until none follows."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Counted] = {}
        self._timer: asyncio.TimerHandle | None = None

    def say(self, kind: Kind, first: Callable[[], None], more: Callable[[int, Kind], None]) -> None:
        """Call `first` now if this kind is new; else count it. On the event loop only.

        Within a second `more` is called with the number and the kind that was counted: the latest `more` of a kind.
        Without an event loop they wait for `close`.
        """
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            kind = kind[:1]
        known = self._kinds.get(kind)
        if known is not None:
            known.more, known.write = known.more + 1, more
            return
        self._kinds[kind] = _Counted(0, more)
        first()
        self._start()

    def close(self) -> None:
        """Write what is counted and not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write()
        self._kinds.clear()

    def _start(self) -> None:
        if self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._turn)
            except RuntimeError:
                return

    def _turn(self) -> None:
        self._timer = None
        self._write()
        if self._kinds:
            self._start()

    def _write(self) -> None:
        """Write each kind's number, and forget the kinds of which none came."""
        for kind, counted in list(self._kinds.items()):
            if counted.more:
                counted.more, more = 0, counted.more
                counted.write(more, kind)
            else:
                del self._kinds[kind]
