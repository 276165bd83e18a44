"""Cancelling a message works only while no worker holds it, and the answer says which case it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import anyio
import pytest

from outbox.model.sink import Delivered
from outbox.store.messages import Burial, Retry
from tests.cli.test_cli import outbox
from tests.support.running import counts
from tests.support.sql import Clock, blocked_on, clock, connected


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    """Its clock is the server's, as the function's is."""
    async with clock(database, name="alice") as worker:
        worker.store.now = None
        yield worker


async def start(worker: Clock, **arguments: str) -> UUID:
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    message_id = await worker.pool.fetchval(f"select outbox.start_workflow('W', 'w-1'{more})")
    assert isinstance(message_id, UUID)
    return message_id


async def cancel(worker: Clock, message_id: UUID) -> bool | None:
    answer = await worker.pool.fetchval("select outbox.cancel($1)", message_id)
    assert answer is None or isinstance(answer, bool)
    return answer


@pytest.mark.parametrize("available_at", ["null", "now() + interval '1 day'"])
async def test_unclaimed_message_is_cancelled_never_delivered_and_in_the_history(
    worker: Clock, available_at: str
) -> None:
    message_id = await start(worker, available_at=available_at, dedup_key="'d'")
    assert await cancel(worker, message_id) is True
    assert await worker.claim() == []
    [row] = await worker.pool.fetch("select * from outbox.message_life")
    assert (row["message_id"], row["status"], row["outcome"], row["workflow_id"]) == (
        message_id,
        "cancelled",
        "cancelled",
        "w-1",
    )
    assert (row["claimed_at"], row["run_id"], row["worker"]) == (None, None, None)
    assert row["settled_at"] >= row["enqueued_at"]
    await start(worker, dedup_key="'d'")
    assert len(await worker.claim()) == 1


async def test_held_message_is_left_alone(worker: Clock, database: str) -> None:
    message_id = await start(worker)
    [message] = await worker.claim()
    assert await cancel(worker, message_id) is False
    assert await worker.store.complete([(message, Delivered())]) == set()
    assert await counts(database) == {"message": 0, "history": 1, "dead_letter": 0}


async def test_message_that_is_not_there_is_null(worker: Clock) -> None:
    assert await cancel(worker, uuid4()) is None
    delivered = await start(worker)
    await worker.store.complete([(message, Delivered()) for message in await worker.claim()])
    assert await cancel(worker, delivered) is None
    dead = await start(worker)
    await worker.store.bury([Burial(message, "rejected", True, "K", "d") for message in await worker.claim()])
    assert await cancel(worker, dead) is None
    again = await start(worker)
    assert await cancel(worker, again) is True
    assert await cancel(worker, again) is None


async def test_failed_message_can_be_cancelled_between_its_tries(worker: Clock) -> None:
    message_id = await start(worker)
    [message] = await worker.claim()
    await worker.store.retry([Retry(message, 300, True, "K", "d")])
    assert await cancel(worker, message_id) is True
    [row] = await worker.pool.fetch("select * from outbox.history")
    assert (row["attempts"], row["outcome"], row["claimed_at"] is None) == (1, "cancelled", False)


async def test_abandoned_message_can_be_cancelled_and_its_worker_settles_nothing_then(
    worker: Clock, database: str
) -> None:
    message_id = await start(worker)
    messages = await worker.claim()
    await worker.pool.execute("update outbox.message set leased_until = now() - interval '1 second'")
    assert await cancel(worker, message_id) is True
    assert await worker.store.complete([(messages[0], Delivered())]) == {messages[0].lease}
    assert await counts(database) == {"message": 0, "history": 1, "dead_letter": 0}


async def test_cancel_is_undone_with_its_transaction_and_a_claim_passes_by_meanwhile(
    worker: Clock, database: str
) -> None:
    message_id = await start(worker)
    async with connected(database) as producer:
        transaction = producer.transaction()
        await transaction.start()
        assert await producer.fetchval("select outbox.cancel($1)", message_id) is True
        assert await worker.claim() == []
        await transaction.rollback()
    assert [message.message_id for message in await worker.claim()] == [message_id]


async def test_cancel_in_the_transaction_that_enqueued(worker: Clock, database: str) -> None:
    async with connected(database) as producer, producer.transaction():
        message_id = await producer.fetchval("select outbox.enqueue('t')")
        assert await producer.fetchval("select outbox.cancel($1)", message_id) is True
    assert await worker.claim() == []


async def test_cancel_that_meets_a_claim_waits_for_it_and_then_leaves_the_message_alone(
    worker: Clock, database: str
) -> None:
    message_id = await start(worker)
    answers = []
    async with connected(database) as claimer, connected(database) as producer:
        transaction = claimer.transaction()
        await transaction.start()
        await claimer.execute("update outbox.message set lease_token = 7, leased_until = now() + interval '1 minute'")
        async with anyio.create_task_group() as tasks:

            async def late() -> None:
                answers.append(await producer.fetchval("select outbox.cancel($1)", message_id))

            tasks.start_soon(late)
            async with blocked_on(worker.pool, producer):
                await transaction.commit()
    assert answers == [False]


async def test_status_does_not_count_a_cancelled_message_as_completed(worker: Clock) -> None:
    await cancel(worker, await start(worker))
    assert (await worker.overview.status())["completed"]["last_hour"] == 0


async def test_partitions_that_are_made_later_take_cancelled_messages(worker: Clock) -> None:
    days = "select outbox.create_history_partitions(2, now() + interval '40 days')"
    assert len(await worker.pool.fetch(days)) == 3
    await worker.pool.execute(
        """
        insert into outbox.history (message_id, seq, created_at, available_at, settled_at, deliveries, attempts, outcome, topic)
        values (outbox.new_message_id(), 1, now(), now(), now() + interval '40 days', 0, 0, 'cancelled', 't')
        """
    )
    assert await worker.pool.fetchval("select count(*) from only outbox.history_default") == 0


async def test_command_reports_each_message_separately(worker: Clock, database: str) -> None:
    delivered, dead, held, tried, pending = [await start(worker) for _ in range(5)]
    messages = {message.message_id: message for message in await worker.claim(4)}
    await worker.store.complete([(messages[delivered], Delivered())])
    await worker.store.bury([Burial(messages[dead], "rejected", True, "K", "d")])
    await worker.store.retry([Retry(messages[tried], 300, True, "K", "d")])
    stranger = uuid4()
    ids = (delivered, dead, held, tried, pending, stranger, pending)
    done = await outbox(database, "cancel", *map(str, ids))
    assert (done.code, done.err) == (1, "")
    assert [tuple(line.split(" ", 1)) for line in done.out.splitlines()] == [
        (str(delivered), "not cancelled: it was delivered already; `outbox.cancel_workflow` asks its workflow to end"),
        (
            str(dead),
            "not cancelled: it is a dead letter already, see `outbox dead show`; `outbox dead discard` deletes it",
        ),
        (str(held), "in flight: a worker holds it and it may be on its way; ask again when it has settled or failed"),
        (str(tried), "cancelled; it had been tried before, and that may have got through"),
        (str(pending), "cancelled"),
        (str(stranger), "not there: no message has this id, or its history has been dropped"),
    ]
    done = await outbox(database, "cancel", str(pending))
    assert (done.code, done.out) == (0, f"{pending} cancelled before\n")


async def test_command_takes_no_word_for_an_id(database: str) -> None:
    done = await outbox(database, "cancel", "org-bootstrap-42")
    assert (done.code, done.fault) == (
        2,
        "'org-bootstrap-42' is no message id: it is a UUID, as `outbox dead list` and `outbox enqueue` print it",
    )
