"""`outbox find` shows a message wherever it is, by its id, its key or its workflow id."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from outbox.model.events import Retried
from outbox.model.sink import Delivered, Failed, Outcome, Rejected
from tests.cli.test_cli import outbox
from tests.support.running import fetch, running
from tests.support.sinks import FakeSink

pytestmark = pytest.mark.timeout(120)
START = "select outbox.start_workflow('Fulfil', $1, key => $2)"


async def test_a_waiting_message_is_found_by_its_id_its_key_and_its_workflow_id(database: str) -> None:
    [[message_id]] = await fetch(database, START, "order-1", "customer-7")
    await fetch(database, START, "order-2", "customer-8")
    for wanted in (str(message_id), str(message_id).upper(), "customer-7", "order-1"):
        done = await outbox(database, "find", wanted)
        assert done.code == 0
        assert done.out.startswith(f"{message_id}  pending\n")
        assert done.out.count("pending") == 1
        shown = " ".join(done.out.split())
        assert "topic Fulfil key customer-7 asks for start_workflow Fulfil order-1 enqueued" in shown


async def test_each_state_is_shown_with_what_follows_from_it(database: str) -> None:
    outcomes: dict[str | None, Outcome] = {
        "delivered": Delivered("order-1", "run-1"),
        "dead": Rejected("BAD", "never\x1b[31m"),
        "again": Failed("DOWN", "not now"),
    }
    sink = FakeSink(lambda message: outcomes[message.key])
    async with running(database, sink, retry_base_s=3600, retry_cap_s=3600) as relay:
        for key in outcomes:
            await fetch(database, START, f"order-{key}", key)
        await relay.wait_completed(1)
        await relay.wait_buried()
        await relay.log.wait_for(Retried)
    delivered = (await outbox(database, "find", "delivered")).out
    assert "  completed\n" in delivered
    assert "run-1" in delivered
    dead = (await outbox(database, "find", "dead")).out
    assert "  failed (rejected)\n" in dead
    assert "last error  never\\x1b[31m" in dead
    again = (await outbox(database, "find", "order-again")).out
    assert "  scheduled\n" in again
    assert "next try" in again
    assert "attempts 1" in again
    assert "last error  not now" in again


async def test_json_is_an_object_a_line_the_latest_first(database: str) -> None:
    ids = [(await fetch(database, START, f"order-{n}", "k"))[0][0] for n in range(3)]
    done = await outbox(database, "find", "k", "--json", "--limit", "2")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["message_id"] for row in rows] == sorted(map(str, ids), reverse=True)[:2]
    assert rows[0]["status"] == "pending"
    assert done.err == "outbox: there are more: add --limit 4\n"


async def test_nothing_found_is_one_line_and_exit_1(database: str) -> None:
    for wanted in (str(uuid4()), "no\nsuch"):
        done = await outbox(database, "find", wanted)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"outbox: {wanted!r} is no message's id, key or workflow id, ")
        assert done.err.count("\n") == 1


async def test_how_far_to_look_back_is_a_duration(database: str) -> None:
    done = await outbox(database, "find", "k", "--within", "soon")
    assert done.code == 2
    assert "'soon' is no duration" in done.err
