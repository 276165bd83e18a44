"""Stopping a worker in a chosen step: an interceptor that holds one activity, or kills its process there."""

from __future__ import annotations

import os
import signal
from typing import Any, Literal

import anyio
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

REACHED_WITHIN_S = 20.0
Moment = Literal["before", "after"]
"""Before an activity has any effect, or after its effect, before it is reported."""


class Gate(Interceptor):
    """Holds activities with an id that begins with `step` until it is opened, or until their worker ends."""

    def __init__(self, step: str, moment: Moment = "after") -> None:
        self.step, self.moment = step, moment
        self.reached = anyio.Event()
        self._open = anyio.Event()

    async def wait_reached(self) -> None:
        """Return once an activity stands at the gate."""
        with anyio.fail_after(REACHED_WITHIN_S):
            await self.reached.wait()

    def open(self) -> None:
        """Let all waiting and all later activities through."""
        self._open.set()

    async def stand(self) -> None:
        """What an activity does at the gate."""
        self.reached.set()
        await self._open.wait()

    def intercept_activity(self, inner: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Held(inner, self)


class Killer(Gate):
    """Kills this very process in the step, as an out-of-memory killer would."""

    async def stand(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _Held(ActivityInboundInterceptor):
    def __init__(self, inner: ActivityInboundInterceptor, gate: Gate) -> None:
        super().__init__(inner)
        self._gate = gate

    async def execute_activity(self, call: ExecuteActivityInput) -> Any:
        here = activity.info().activity_id.startswith(self._gate.step)
        if here and self._gate.moment == "before":
            await self._gate.stand()
        result = await super().execute_activity(call)
        if here and self._gate.moment == "after":
            await self._gate.stand()
        return result
