"""The lives of messages against a model, on the real database: producers, workers and people act in any order.

Every step is a transaction of its own, and the clock is the test's. The model says what a claim may bring, what a
settlement must say, and where every message is; in the end everything that is not dead or cancelled must come out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from anyio import to_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from outbox.model.message import FRONT, Message, Pause
from outbox.model.sink import Delivered
from outbox.postgres.pool import Pool, open_pool
from outbox.store.dead_letters import DeadLetters
from outbox.store.messages import Burial, Retry, Store
from outbox.store.rules import Rules
from outbox.store.workers import Workers

T = TypeVar("T")
TOPICS = ("a", "b.x", "b.y")
LIMITED, RATE, BURST = "b.*", 0.5, 2
LEASE_S = 30.0
WORKERS = (1, 2, 3)
LONG = os.environ.get("OUTBOX_CHAOS") == "long"
PAUSES = (Pause(), Pause(topic="a"), Pause(topic="b.*"), Pause(topic="b.x"), Pause(key="k1"))


@dataclass
class Life:
    """What the model knows of one message."""

    seq: int
    topic: str
    key: str | None
    due: datetime
    state: str = "waiting"
    held: Message | None = None
    """The claim that the database must believe to hold it."""
    until: datetime | None = None
    worker: int | None = None


@dataclass(eq=False)
class Series:
    """Messages of one key that were claimed together, or any other by itself: settled by their worker one by one."""

    messages: list[Message]
    """Those that the worker has not given up yet, stale ones included."""
    given_up: bool = False
    """Whether one of them has to be tried again, so that the others are to be released."""


def series_of(messages: list[Message]) -> list[Series]:
    """What a claim brought, as its worker sees it."""
    some: dict[object, Series] = {}
    for message in messages:
        some.setdefault(message.message_id if message.key is None else message.key, Series([])).messages.append(message)
    return list(some.values())


class Lives(RuleBasedStateMachine):
    """The model, and beside it the store."""

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.context = open_pool(self.dsn, size=2, application_name="lives", statement_timeout_s=30)
        self.pool: Pool = self.run(self.context.__aenter__())
        self.store = Store(self.pool, "outbox")
        self.letters = DeadLetters(self.pool, "outbox")
        self.lives: dict[UUID, Life] = {}
        self.series: list[Series] = []
        self.paused: set[Pause] = set()
        self.limited_at: list[datetime] = []
        self.limited = False
        self.lane = dict.fromkeys(WORKERS, "")
        self.place = dict.fromkeys(WORKERS, FRONT)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        tables = "message, outbox.history, outbox.dead_letter, outbox.pause, outbox.topic_limit, outbox.ended_rule"
        self.run(self.pool.execute(f"truncate outbox.{tables}"))
        now = self.run(self.pool.fetchval("select now() + interval '1 hour'"))  # producers' own clock is behind it
        self.store.now = now

    @property
    def now(self) -> datetime:
        assert self.store.now is not None
        return self.store.now

    # Producers

    @rule(
        topic=st.sampled_from(TOPICS),
        key=st.sampled_from([None, "k1", "k2"]),
        tenant=st.sampled_from([None, None, "t1", "t2"]),
        delay_s=st.sampled_from([None, None, 5.0, 40.0]),
        priority=st.sampled_from([0, 0, 9]),
    )
    def enqueue(self, topic: str, key: str | None, tenant: str | None, delay_s: float | None, priority: int) -> None:
        at = None if delay_s is None else self.now + timedelta(seconds=delay_s)
        message_id = self.run(
            self.pool.fetchval(
                "select outbox.enqueue($1, key => $2, tenant => $3, available_at => $4, priority => $5)",
                topic, key, tenant, at, priority,
            )
        )  # fmt: skip
        row = self.run(self.pool.fetchrow("select seq from outbox.message where message_id = $1", message_id))
        assert row
        self.lives[message_id] = Life(row["seq"], topic, key, at or self.now)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.lives)))
        life = self.lives[message_id]
        [answer] = self.run(self.letters.cancel([message_id]))
        if life.state == "waiting":
            assert answer.cancelled is True
            life.state = "cancelled"
        else:
            assert answer.cancelled is (False if life.state == "leased" else None)

    # Workers

    @rule(
        worker=st.sampled_from(WORKERS),
        limit=st.integers(1, 6),
        series=st.sampled_from([1, 2, 8]),
        behind=st.booleans(),
    )
    def claim(self, worker: int, limit: int, series: int, behind: bool) -> None:
        self.claim_some(worker, limit, series, behind=behind)

    def claim_some(self, worker: int, limit: int, series: int, *, behind: bool = False) -> bool:
        """Claim as a worker's round does, perhaps behind its last claim; return whether to look again at once."""
        how: dict[str, Any] = {"lease_s": LEASE_S, "worker_id": worker}
        ruled = self.run(self.store.outlook()).ruled
        claim = self.store.claim_ruled if ruled else self.store.claim
        plain = self.run(claim(limit, **how, after=self.place[worker] if behind else FRONT))
        if plain.messages:
            self.place[worker] = plain.messages[-1].due_s, plain.messages[-1].seq
        messages = plain.messages
        outlook = self.run(self.store.outlook())
        more = plain.more or (outlook.due and (bool(messages) or ruled))
        if outlook.restricted:
            lane = self.lane[worker]
            restricted = self.run(
                self.store.claim_restricted(limit, **how, suspect_after=1000, lane=lane, series=series)
            )
            assert len(restricted.messages) <= limit
            self.lane[worker] = restricted.lane or ""
            messages = messages + restricted.messages
            more = more or restricted.more
        brought = series_of(messages)
        assert all(len(one.messages) <= series for one in brought)
        self.series += brought
        for message in messages:
            self.check_claim(message, {other.message_id for other in messages if other.key == message.key})
        for message in messages:
            life = self.lives[message.message_id]
            life.state, life.held, life.until = "leased", message, self.now + timedelta(seconds=LEASE_S)
            life.worker = worker
            if self.limited and life.topic.startswith("b."):
                self.limited_at.append(self.now)
        return more or bool(messages)

    def check_claim(self, message: Message, together: set[UUID]) -> None:
        life = self.lives[message.message_id]
        assert life.state in ("waiting", "leased"), "settled stays settled"
        if life.state == "leased":
            assert life.until is not None
            assert life.until <= self.now, "one live lease at most"
        assert life.due <= self.now
        assert not any(pause.holds(message) for pause in self.paused)
        for message_id, other in self.lives.items():
            if life.key is not None and other.key == life.key and message_id not in together:
                live = other.state == "leased" and other.until is not None and other.until > self.now
                assert not live, "one series in flight of a key"
                assert other.state not in ("waiting", "leased") or other.seq > life.seq, "in the order of their numbers"

    @precondition(lambda self: self.series)
    @rule(data=st.data(), how=st.sampled_from(["complete", "complete", "retry", "bury", "release"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        """A worker settles the messages of a series in their order; what follows one that is to be tried again, it releases."""
        some = data.draw(st.lists(st.sampled_from(self.series), min_size=1, max_size=4, unique_by=id))
        some = [one for one in some if one.given_up] or some
        if some[0].given_up:
            how = "release"
        if how == "complete":
            chosen = [
                message for one in some for message in one.messages[: data.draw(st.integers(1, len(one.messages)))]
            ]
        elif how == "release":
            chosen = [message for one in some for message in one.messages]
        else:
            chosen = [one.messages[0] for one in some]
            for one in some:
                one.given_up = how == "retry"
        self.settle_these(chosen, how)

    def settle_these(self, chosen: list[Message], how: str) -> None:
        match how:
            case "complete":
                lost = self.run(self.store.complete([(message, Delivered("w", "r")) for message in chosen]))
            case "retry":
                retries = [Retry(message, 10.0, counted=True, kind="K", detail="d") for message in chosen]
                lost = self.run(self.store.retry(retries))
            case "bury":
                burials = [Burial(message, "rejected", counted=True, kind="K", detail="d") for message in chosen]
                lost = self.run(self.store.bury(burials))
            case _:
                lost = self.run(self.store.release(chosen))
        for one in self.series:
            one.messages = [message for message in one.messages if message not in chosen]
        self.series = [one for one in self.series if one.messages]
        for message in chosen:
            life = self.lives[message.message_id]
            holds = life.state == "leased" and life.held is not None and life.held.lease == message.lease
            assert (message.lease in lost) is not holds, "a lease holds until another claim meets it expired"
            if holds:
                life.state = {"complete": "completed", "bury": "dead"}.get(how, "waiting")
                if how == "retry":
                    life.due = self.now + timedelta(seconds=10)

    @rule(worker=st.sampled_from(WORKERS))
    def rescue(self, worker: int) -> None:
        """Others take a worker for dead. It may still live, and settle what no other worker has claimed."""
        presence = 1000 + worker
        self.run(
            self.pool.execute(
                """insert into outbox.worker (worker_id, name, version, presence) overriding system value values ($1, $2, '', $3)
                   on conflict (worker_id) do update set presence = excluded.presence""",
                worker, f"w{worker}", presence,
            )
        )  # fmt: skip
        held = [
            life
            for life in self.lives.values()
            if life.state == "leased" and life.worker == worker and life.until is not None and life.until > self.now
        ]
        assert self.run(Workers(self.pool, "outbox").rescue([(worker, presence)], self.now)) == [
            (f"w{worker}", len(held))
        ]
        for life in held:
            life.until = self.now

    # People

    @rule(pause=st.sampled_from(PAUSES))
    def pause(self, pause: Pause) -> None:
        self.run(Rules(self.pool, "outbox").pause(pause))
        self.paused.add(pause)

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        pause = data.draw(st.sampled_from(sorted(self.paused, key=str)))
        assert self.run(Rules(self.pool, "outbox").resume(pause))
        self.paused.remove(pause)

    @rule(on=st.booleans())
    def limit(self, on: bool) -> None:
        self.run(Rules(self.pool, "outbox").limit_topic(LIMITED, RATE if on else None, BURST if on else None))
        self.limited, self.limited_at = on, []

    @precondition(lambda self: any(life.state == "dead" for life in self.lives.values()))
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        dead = sorted(message_id for message_id, life in self.lives.items() if life.state == "dead")
        message_id = data.draw(st.sampled_from(dead))
        assert self.run(self.letters.requeue([message_id])) == {message_id: True}
        self.lives[message_id].state = "waiting"
        self.lives[message_id].due = self.now

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.store.now = self.now + timedelta(seconds=seconds)

    # What must hold

    @invariant()
    def every_message_is_where_the_model_has_it(self) -> None:
        rows = self.run(
            self.pool.fetch(
                """select message_id, case when lease_token is null then 'waiting' else 'leased' end from outbox.message
                   union all select message_id, 'dead' from outbox.dead_letter
                   union all select message_id, case outcome when 'cancelled' then outcome else 'completed' end from outbox.history"""
            )
        )
        for message_id, state in rows:
            life = self.lives[message_id]
            if state == "waiting" and life.state == "leased":  # a claim found it, and it must wait
                assert life.until is not None
                assert life.until <= self.now
                life.state = "waiting"
        assert sorted(map(tuple, rows)) == sorted((message_id, life.state) for message_id, life in self.lives.items())

    @invariant()
    def limits_are_kept(self) -> None:
        for place, start in enumerate(self.limited_at):
            for count, end in enumerate(self.limited_at[place:], start=1):
                assert count <= BURST + RATE * (end - start).total_seconds() + 1e-6

    def teardown(self) -> None:
        """Lift everything and let time pass: nothing may be left behind."""
        try:
            if self.store.now is not None:
                self.let_everything_out()
        finally:
            self.run(self.context.__aexit__(None, None, None))
            self.runner.close()

    def let_everything_out(self) -> None:
        for pause in list(self.paused):
            self.run(Rules(self.pool, "outbox").resume(pause))
        self.paused.clear()
        self.limit(False)
        for _ in range(100 + 3 * len(self.lives)):
            self.store.now = self.now + timedelta(seconds=41)
            while self.claim_some(1, 6, 8):
                self.every_message_is_where_the_model_has_it()
                self.settle_these(
                    [message for one in self.series if one.given_up for message in one.messages], "release"
                )
                held = [
                    message
                    for one in self.series
                    for message in one.messages
                    if self.lives[message.message_id].held is message
                ]
                self.settle_these(held, "complete")
            if not any(life.state in ("waiting", "leased") for life in self.lives.values()):
                return
        raise AssertionError(
            f"left behind: {[life for life in self.lives.values() if life.state in ('waiting', 'leased')]}"
        )


@pytest.mark.timeout(1200 if LONG else 300)
async def test_lives_are_as_the_model_has_them(database: str) -> None:
    machine = type("LivesHere", (Lives,), {"dsn": database})
    budget = settings(
        max_examples=400 if LONG else 15,
        stateful_step_count=80 if LONG else 50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    await to_thread.run_sync(lambda: run_state_machine_as_test(machine, settings=budget))
