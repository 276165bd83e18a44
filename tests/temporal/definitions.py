"""Workflows for the adapter's tests."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError


@workflow.defn
class Echo:
    """Returns its arguments, decoded."""

    @workflow.run
    async def run(self, first: Any = None, second: Any = None) -> list[Any]:
        return [first, second]


@workflow.defn
class ContinuesOnce:
    """Continues as new once, then waits for a signal."""

    def __init__(self) -> None:
        self._done = False

    @workflow.run
    async def run(self, again: bool) -> None:
        if again:
            workflow.continue_as_new(False)
        await workflow.wait_condition(lambda: self._done)

    @workflow.signal
    def finish(self) -> None:
        self._done = True


@workflow.defn
class ContinuesOnSignal:
    """Continues as new at every signal "go_on", ends at "end"; ignores requests to cancel."""

    def __init__(self) -> None:
        self._word = ""

    @workflow.run
    async def run(self, runs: int = 1) -> int:
        while not self._word:
            try:
                await workflow.wait_condition(lambda: bool(self._word))
            except asyncio.CancelledError:
                continue
        if self._word == "go_on":
            workflow.continue_as_new(runs + 1)
        return runs

    @workflow.signal
    def go_on(self, _item: Any = None) -> None:
        self._word = self._word or "go_on"

    @workflow.signal
    def end(self, _item: Any = None) -> None:
        self._word = self._word or "end"

    @workflow.signal
    def add(self, _item: Any = None) -> None:
        """Is only counted by the server."""


@workflow.defn
class Collects:
    """Returns the signals it saw once "stop" is among them."""

    def __init__(self) -> None:
        self._seen: list[Any] = []

    @workflow.run
    async def run(self, name: str = "") -> list[Any]:
        await workflow.wait_condition(lambda: "stop" in self._seen)
        return [name, *self._seen]

    @workflow.signal
    def add(self, item: Any) -> None:
        self._seen.append(item)


@workflow.defn
class Hears:
    """Returns the numbers that it received, in the order of arrival, each message once."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._numbers: list[int] = []

    @workflow.run
    async def run(self, count: int) -> list[int]:
        await workflow.wait_condition(lambda: len(self._numbers) >= count)
        return self._numbers

    @workflow.signal
    def hear(self, sent: dict[str, Any]) -> None:
        if sent["id"] not in self._ids:
            self._ids.add(sent["id"])
            self._numbers.append(sent["number"])


@workflow.defn
class FailsOnce:
    """Fails at its first attempt."""

    @workflow.run
    async def run(self) -> None:
        if workflow.info().attempt == 1:
            raise ApplicationError("once")
