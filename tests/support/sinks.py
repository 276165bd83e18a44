"""Sinks for tests: a scripted one, and one that swallows everything."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import anyio

from outbox.model.message import Message
from outbox.model.sink import Delivered, Outcome, Sink, SinkContext, Unavailable

TIMEOUT_S = 15.0
DOWN = Unavailable("FakeSinkDown", "the fake sink is set to be unavailable")
Answer = Callable[[Message], Outcome]


def deliver_all(message: Message) -> Outcome:
    """The answer to everything, unless a test has another."""
    return Delivered(workflow_id=f"workflow-{message.message_id}", run_id=f"run-{message.deliveries}")


class FakeSink:
    """A sink with answers that a test scripts.

    `answer` may be replaced at any time; what it raises, `deliver` raises. Its answer is taken when the delivery ends,
    so a test that blocks the sink may decide the outcome while deliveries hang in it. While `available` is False both
    methods answer `DOWN`.
    """

    def __init__(self, answer: Answer = deliver_all) -> None:
        self.answer = answer
        self.available = True
        self.received: list[Message] = []
        """Every message handed over, in the order of arrival."""
        self.answered: list[tuple[Message, Outcome]] = []
        """Every outcome given, in the order of completion."""
        self.probes = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.context: SinkContext | None = None
        """The context of the worker that entered the factory last."""
        self._gate: anyio.Event | None = None
        self._changed: set[anyio.Event] = set()

    @property
    def ids(self) -> list[UUID]:
        """The message ids received, repetitions included."""
        return [message.message_id for message in self.received]

    def block(self) -> None:
        """From now on deliveries hang until `unblock`."""
        self._gate = self._gate or anyio.Event()

    def unblock(self) -> None:
        """Let the hanging deliveries go."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()

    async def deliver(self, message: Message) -> Outcome:
        self.received.append(message)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._notify()
        try:
            if self._gate is not None:
                await self._gate.wait()
            outcome = self.answer(message) if self.available else DOWN
        finally:
            self.in_flight -= 1
            self._notify()
        self.answered.append((message, outcome))
        self._notify()
        return outcome

    async def probe(self) -> Unavailable | None:
        self.probes += 1
        self._notify()
        return None if self.available else DOWN

    @asynccontextmanager
    async def factory(self, context: SinkContext) -> AsyncIterator[Sink]:
        """An `outbox.model.sink.SinkFactory` that gives this very sink."""
        self.context = context
        yield self

    async def wait_until(self, state: Callable[[], bool], *, timeout_s: float = TIMEOUT_S) -> None:
        """Return once `condition` holds; it is looked at now and whenever something happens in the sink."""
        with anyio.move_on_after(timeout_s):
            while not state():
                changed = anyio.Event()
                self._changed.add(changed)
                try:
                    await changed.wait()
                finally:
                    self._changed.discard(changed)
            return
        raise AssertionError(
            f"the sink did not get there within {timeout_s} s: {len(self.received)} received, "
            f"{len(self.answered)} answered, {self.in_flight} in flight, {self.probes} probes"
        )

    async def wait_received(self, count: int, *, timeout_s: float = TIMEOUT_S) -> None:
        """Return once at least `count` messages have been handed over."""
        await self.wait_until(lambda: len(self.received) >= count, timeout_s=timeout_s)

    def _notify(self) -> None:
        for changed in self._changed:
            changed.set()


class NullSink:
    """Delivers everything to nowhere, at once."""

    async def deliver(self, message: Message) -> Outcome:
        return Delivered()

    async def probe(self) -> Unavailable | None:
        return None


@asynccontextmanager
async def null_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:null_sink`."""
    yield NullSink()


class DeadlySink(NullSink):
    """Kills its own process on any message with the topic `killer`; takes its time over the others."""

    async def deliver(self, message: Message) -> Outcome:
        if message.topic == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        await anyio.sleep(0.3)  # so that the innocent are in flight when the killer strikes
        return Delivered()


@asynccontextmanager
async def deadly_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:deadly_sink`."""
    yield DeadlySink()


class SlowSink(NullSink):
    """Takes its time over each message."""

    async def deliver(self, message: Message) -> Outcome:
        await anyio.sleep(0.1)  # what a delivery takes here: so that some are in flight at any moment
        return Delivered()


@asynccontextmanager
async def slow_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:slow_sink`."""
    yield SlowSink()


class ShutSink(NullSink):
    """Delivers nothing until the file exists that `OUTBOX_TEST_GATE` names."""

    def __init__(self, gate: anyio.Path) -> None:
        self._gate = gate

    async def deliver(self, message: Message) -> Outcome:
        while not await self._gate.exists():
            await anyio.sleep(0.02)  # how often the gate is looked at: another process opens it
        return Delivered()


@asynccontextmanager
async def shut_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:shut_sink`."""
    yield ShutSink(anyio.Path(os.environ["OUTBOX_TEST_GATE"]))


class StuckSink(NullSink):
    """Keeps the event loop from turning for as many seconds as `OUTBOX_TEST_STUCK_S` says, as bad codecs do."""

    async def deliver(self, message: Message) -> Outcome:
        time.sleep(float(os.environ["OUTBOX_TEST_STUCK_S"]))
        return Delivered()


@asynccontextmanager
async def stuck_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:stuck_sink`."""
    yield StuckSink()


class ForgetfulSink(NullSink):
    """Recognises repeats for as many seconds as `OUTBOX_TEST_MEMORY_S` says; unknown when that is not set."""

    async def memory_s(self, namespace: str | None) -> float | Unavailable:
        memory_s = os.environ.get(f"OUTBOX_TEST_MEMORY_S{'' if namespace is None else '_' + namespace.upper()}")
        return Unavailable("PERMISSION_DENIED", "not for you") if memory_s is None else float(memory_s)


@asynccontextmanager
async def forgetful_sink(context: SinkContext) -> AsyncIterator[Sink]:
    """`OUTBOX_SINK=tests.support.sinks:forgetful_sink`."""
    yield ForgetfulSink()
