"""Decides which wake-up sources run: by the mode that was asked for, and in `auto` by which of them proves to work.

`auto` prefers LISTEN. While it cannot be trusted, Realtime runs beside it where it is configured; once LISTEN has been
trusted for a while, Realtime is stopped. Polling always goes on and depends on no source.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

import anyio

from outbox.model.events import Emit, ModeChanged

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from outbox.wakeup.doorbell import Wakeup

Mode = Literal["auto", "listen", "realtime", "poll"]
MODES = get_args(Mode)
SWITCH = "mode"
"""The switch in the control table that overrides every worker's own setting."""

_GIVE_LISTEN_S = 3.0
"""How long LISTEN may be untrusted before `auto` takes Realtime in."""
_LET_GO_AFTER_S = 10.0
"""How long LISTEN must have been trusted before `auto` lets Realtime go."""
_LOOK_EVERY_S = 1.0


class Source(Protocol):
    """Something that rings the doorbell until it is cancelled."""

    error: str | None
    """Why it cannot ring, while it cannot."""

    async def run(self) -> None:
        """Ring until cancelled."""


class SourceSelection:
    """Runs the wanted ones of `sources`, by name. `changed` is called whenever the result of `report` changes."""

    def __init__(
        self,
        sources: dict[str, Source],
        wakeup: Wakeup,
        emit: Emit,
        setting: Mode,
        *,
        changed: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._sources = sources
        self._wakeup = wakeup
        self._emit = emit
        self._setting = setting
        self._changed = changed
        self._clock = clock
        self._switch: Mode | None = None
        self._look = anyio.Event()
        self._running: dict[str, anyio.CancelScope] = {}
        self._listen_turned_s = clock()
        self._listen_trusted = False

    @property
    def mode(self) -> Mode:
        """What was asked for."""
        return self._switch or self._setting

    def apply(self, switches: dict[str, Any]) -> None:
        """Take the mode from the control table; a value that is none counts as absent."""
        asked = switches.get(SWITCH)
        switch = cast("Mode", asked) if asked in MODES else None
        if switch != self._switch:
            self._switch = switch
            self._look.set()

    def report(self) -> dict[str, Any]:
        """What runs, and why, for people."""
        return {
            "mode": self.mode,
            "mode_from": "outbox mode" if self._switch else "OUTBOX_MODE",
            "configured": list(self._sources),
            "sources": {name: self._state(name) for name in self._running if self._runs(name)},
        }

    async def run(self) -> None:
        """Run sources until cancelled."""
        emitted: tuple[Mode, tuple[str, ...]] | None = None
        reported: dict[str, Any] = {}
        async with anyio.create_task_group() as tasks:
            while True:
                wanted, why = self._wanted()
                self._start_and_stop(wanted, tasks)
                if emitted != (self.mode, wanted):
                    emitted = (self.mode, wanted)
                    self._emit(ModeChanged(self.mode, wanted, why))
                    self._wakeup.nudge("mode")  # the relay looks now, and then at the new rhythm
                if reported != (report := self.report()):
                    reported = report
                    self._changed()
                with anyio.move_on_after(_LOOK_EVERY_S):
                    await self._look.wait()
                self._look = anyio.Event()

    def _wanted(self) -> tuple[tuple[str, ...], str]:
        """The sources that have to run now, and why."""
        if self.mode == "poll":
            return (), self._origin()
        if self.mode != "auto":
            if self.mode in self._sources:
                return (self.mode,), self._origin()
            return (), f"{self.mode} is not configured on this worker"
        if "realtime" not in self._sources:
            return ("listen",), self._origin()
        return self._choose()

    def _choose(self) -> tuple[tuple[str, ...], str]:
        """Auto, by evidence: LISTEN alone, or with Realtime until LISTEN has proved itself."""
        now_s = self._clock()
        trusted = self._wakeup.trusts("listen")
        if trusted != self._listen_trusted:
            self._listen_trusted, self._listen_turned_s = trusted, now_s
        for_s = now_s - self._listen_turned_s
        both = self._runs("realtime")
        if not trusted and (both or for_s > _GIVE_LISTEN_S):
            return ("listen", "realtime"), f"listen: {self._state('listen')}"
        if trusted and both and for_s < _LET_GO_AFTER_S:
            return ("listen", "realtime"), "listen has to prove itself"
        return ("listen",), "listen is trusted" if trusted else self._origin()

    def _origin(self) -> str:
        return "set by outbox mode" if self._switch else "set by OUTBOX_MODE"

    def _state(self, name: str) -> str:
        if self._wakeup.trusts(name):
            return "ready"
        return self._sources[name].error or ("missed messages" if self._wakeup.has(name) else "connecting")

    def _start_and_stop(self, wanted: tuple[str, ...], tasks: TaskGroup) -> None:
        for name in wanted:
            if name not in self._running:
                self._running[name] = anyio.CancelScope()
                tasks.start_soon(self._run_source, name, self._running[name])
        for name in set(self._running).difference(wanted):
            self._running[name].cancel()

    def _runs(self, name: str) -> bool:
        return name in self._running and not self._running[name].cancel_called

    async def _run_source(self, name: str, scope: anyio.CancelScope) -> None:
        """Run a source to its end. Only then it may be started again, or the old one would unsubscribe the new one."""
        with scope:
            await self._sources[name].run()
        del self._running[name]
        self._look.set()
