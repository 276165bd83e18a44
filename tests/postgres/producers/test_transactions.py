"""Over every library: the message belongs to the caller's transaction, and says what the caller said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import transaction

from outbox.producer import (
    PayloadError,
    cancel,
    cancel_workflow,
    enqueue,
    enqueue_many,
    signal_with_start_workflow,
    signal_workflow,
    start_workflow,
    terminate_workflow,
)
from outbox.store.migrations import migrate
from outbox_temporal.servers.postgres import PostgresServer
from tests.postgres.producers.conftest import Rows
from tests.postgres.producers.libraries import (
    Caller,
    asyncpg_connection,
    django_connection,
    psycopg_async_connection,
    psycopg_connection,
)
from tests.support.pgbouncer import needs_pgbouncer, pgbouncer

TRICKY = "it's 100% %s :name $1 {place} \\ \x01 ü 🚀"


def test_message_appears_when_the_caller_commits(caller: Caller, rows: Rows) -> None:
    message_id = caller.call(enqueue, "orders", {"order": 42})
    assert type(message_id) is UUID
    assert rows() == {}
    caller.commit()
    [(written_id, row)] = rows().items()
    assert written_id == message_id
    assert (row["topic"], row["payload"]) == ("orders", '{"order":42}')


def test_nothing_is_left_when_the_caller_rolls_back(caller: Caller, rows: Rows) -> None:
    caller.call(enqueue, "orders", {"order": 42})
    caller.call(start_workflow, "W", "w-1")
    caller.rollback()
    assert rows() == {}


def test_enqueue_writes_every_argument(caller: Caller, rows: Rows) -> None:
    message_id, at = uuid4(), datetime(2100, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
    target = {"operation": "cancel_workflow", "workflow_id": "w"}
    returned = caller.call(
        enqueue,
        TRICKY,
        {"tricky": TRICKY},
        key=TRICKY,
        headers={"h": TRICKY},
        target=target,
        message_id=message_id,
        dedup_key=TRICKY,
        available_at=at,
        priority=4,
    )
    caller.commit()
    row = rows()[message_id]
    assert returned == message_id
    assert row["topic"] == row["key"] == row["dedup_key"] == TRICKY
    assert row["payload"] == '{"tricky":"it\'s 100% %s :name $1 {place} \\\\ \\u0001 ü 🚀"}'
    assert (row["headers"], row["target"]) == ({"h": TRICKY}, target)
    assert (row["available_at"], row["priority"]) == (at, 4)


def test_workflow_calls_write_every_argument(caller: Caller, rows: Rows) -> None:
    started = caller.call(
        start_workflow,
        "W",
        "w-1",
        {"n": 1},
        task_queue="q",
        namespace="n",
        id_reuse_policy="allow_duplicate",
        id_conflict_policy="use_existing",
        on_duplicate="reject",
        execution_timeout=timedelta(hours=1),
        run_timeout=timedelta(seconds=90.5),
        task_timeout=timedelta(seconds=10),
        start_delay=timedelta(days=1, microseconds=1),
        retry_policy={"maximum_attempts": 3},
        memo={"a": None},
        search_attributes={"K": [1]},
        topic="T",
    )
    signalled = caller.call(signal_workflow, "w-1", "s", args=[1, "two"], run_id="r", namespace="n")
    caller.commit()
    written = rows()
    assert (written[started]["topic"], written[started]["payload"]) == ("T", '{"n":1}')
    assert written[started]["target"] == {
        "operation": "start_workflow",
        "workflow": "W",
        "workflow_id": "w-1",
        "arguments": "one",
        "task_queue": "q",
        "namespace": "n",
        "id_reuse_policy": "allow_duplicate",
        "id_conflict_policy": "use_existing",
        "on_duplicate": "reject",
        "execution_timeout_s": 3600,
        "run_timeout_s": 90.5,
        "task_timeout_s": 10,
        "start_delay_s": 86400.000001,
        "retry_policy": {"maximum_attempts": 3},
        "memo": {"a": None},
        "search_attributes": {"K": [1]},
    }
    assert (written[signalled]["topic"], written[signalled]["payload"]) == ("s", '[1,"two"]')
    assert written[signalled]["target"] == {
        "operation": "signal_workflow",
        "workflow_id": "w-1",
        "signal": "s",
        "arguments": "many",
        "run_id": "r",
        "namespace": "n",
    }


def test_what_starts_and_signals_or_ends_a_workflow_is_written_as_sql_writes_it(caller: Caller, rows: Rows) -> None:
    both = caller.call(signal_with_start_workflow, "W", "w-1", "s", None, {"n": 1}, task_queue="q", memo={"a": 1})
    several = caller.call(signal_with_start_workflow, "W", "w-2", "s", args=[1], signal_args=[2, 3])
    cancelled = caller.call(cancel_workflow, "w-1", reason=TRICKY, run_id="r", namespace="n")
    terminated = caller.call(terminate_workflow, "w-1", topic="T", key="k")
    caller.commit()
    written = rows()
    assert written[both]["payload"] == '{"args" : [null], "signal_args" : [{"n":1}]}'
    assert written[several]["payload"] == '{"args" : [1], "signal_args" : [2,3]}'
    operation = {"operation": "signal_with_start_workflow", "workflow": "W", "workflow_id": "w-1", "signal": "s"}
    assert written[both]["target"] == operation | {"task_queue": "q", "memo": {"a": 1}}
    ends = {"workflow_id": "w-1", "reason": TRICKY, "run_id": "r", "namespace": "n"}
    assert written[cancelled]["target"] == {"operation": "cancel_workflow"} | ends
    assert written[terminated]["target"] == {"operation": "terminate_workflow", "workflow_id": "w-1"}
    assert (written[terminated]["topic"], written[terminated]["key"]) == ("T", "k")


def test_cancel_answers_whether_a_message_was_taken_back(caller: Caller, database: str, rows: Rows) -> None:
    mine, held = caller.call(enqueue, "t"), caller.call(enqueue, "t")
    caller.commit()
    with psycopg.connect(database, autocommit=True) as worker:
        lease = (
            "update outbox.message set leased_until = now() + interval '1 hour', lease_token = 1 where message_id = %s"
        )
        worker.execute(lease, (held,))
    answers = [caller.call(cancel, message_id) for message_id in (mine, held, uuid4())]
    assert answers == [True, False, None]
    assert set(rows()) == {mine, held}
    caller.commit()
    assert set(rows()) == {held}


def test_enqueue_many_returns_ids_in_the_order_given(caller: Caller, rows: Rows) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    messages = [{"topic": f"t{n}", "payload": {"n": n}, "key": None, "headers": {"h": "x"}} for n in range(20)]
    messages.append({"topic": "late", "available_at": at, "message_id": (own := uuid4()), "payload": None})
    ids = caller.call(enqueue_many, messages)
    assert caller.call(enqueue_many, []) == []
    caller.commit()
    written = rows()
    assert [written[i]["topic"] for i in ids] == [message["topic"] for message in messages]
    assert [written[i]["payload"] for i in ids] == [f'{{"n":{n}}}' for n in range(20)] + ["null"]
    assert (ids[-1], written[own]["available_at"]) == (own, at)
    assert written[ids[0]]["headers"] == {"h": "x"}
    assert written[ids[0]]["key"] is None


def test_what_sql_refuses_is_the_librarys_error_with_the_text_of_sql(caller: Caller, rows: Rows) -> None:
    with pytest.raises(caller.refusal, match="start_workflow: workflow_id must not be empty"):
        caller.call(start_workflow, "W", "")
    caller.rollback()
    with pytest.raises(caller.refusal, match="priority is 10, it must lie between 0 and 9"):
        caller.call(enqueue, "t", priority=10)
    caller.rollback()
    with pytest.raises(caller.refusal, match=r"run_timeout is -00:00:00\.5, it must lie between 0 and 100 years"):
        caller.call(start_workflow, "W", "w", run_timeout=timedelta(seconds=-0.5))
    caller.rollback()
    with pytest.raises(caller.refusal, match=r"messages\[1\]: topic must not be empty"):
        caller.call(enqueue_many, [{"topic": "t"}, {"topic": ""}])
    caller.rollback()
    assert rows() == {}


def test_what_cannot_be_encoded_is_refused_before_anything_is_sent(caller: Caller, rows: Rows) -> None:
    """The transaction is as good as before, and an asynchronous call does not wait to be awaited with it."""
    kept = caller.call(enqueue, "kept")
    with pytest.raises(PayloadError):
        enqueue(caller.connection, "t", object())
    caller.commit()
    assert set(rows()) == {kept}


def test_dedup_key_returns_the_first_messages_id(caller: Caller) -> None:
    assert caller.call(enqueue, "t", dedup_key="d") == caller.call(enqueue, "t", dedup_key="d")


# What the caller has set on the connection


@pytest.mark.parametrize("sql_type", ["json", "jsonb", "uuid", "timestamptz", "interval", "int4"])
def test_callers_asyncpg_codec_changes_nothing(database: str, rows: Rows, sql_type: str) -> None:
    def refuse(value: object) -> str:
        raise AssertionError(f"the caller's codec was given {value!r}")

    with asyncpg_connection(database) as caller:
        caller.wait(
            caller.connection.set_type_codec(sql_type, encoder=refuse, decoder=refuse, schema="pg_catalog")  # type: ignore[misc]
        )
        message_id = caller.call(
            enqueue,
            "t",
            {"n": 1},
            headers={"h": 1},
            available_at=datetime(2100, 1, 1, tzinfo=UTC),
            priority=1,
            message_id=uuid4(),
        )
        caller.call(start_workflow, "W", "w", run_timeout=timedelta(seconds=1))
        caller.commit()
    assert (rows()[message_id]["payload"], rows()[message_id]["headers"]) == ('{"n":1}', {"h": 1})


@pytest.mark.parametrize(
    ("opens", "cursor"),
    [
        (psycopg_connection, psycopg.ClientCursor),
        (psycopg_connection, psycopg.RawCursor),
        (psycopg_async_connection, psycopg.AsyncClientCursor),
        (psycopg_async_connection, psycopg.AsyncRawCursor),
    ],
)
def test_callers_psycopg_cursors_and_rows_change_nothing(
    database: str, rows: Rows, opens: object, cursor: object
) -> None:
    with opens(database, cursor_factory=cursor, row_factory=psycopg.rows.dict_row) as caller:  # type: ignore[operator]
        message_id = caller.call(enqueue, "t", {"n": 1})
        caller.commit()
    assert set(rows()) == {message_id}


def test_in_autocommit_the_message_is_a_transaction_of_its_own(database: str, rows: Rows) -> None:
    with psycopg_connection(database, autocommit=True) as caller:
        message_id = caller.call(enqueue, "t")
        assert set(rows()) == {message_id}


def test_message_belongs_to_djangos_atomic_block(database: str, rows: Rows) -> None:
    with django_connection(database) as caller:
        caller.connection.set_autocommit(True)
        with transaction.atomic():
            kept = caller.call(enqueue, "t")
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                caller.call(enqueue, "u")
                raise ZeroDivisionError
            assert rows() == {}
    assert set(rows()) == {kept}


@needs_pgbouncer
@pytest.mark.parametrize(
    ("opens", "arguments"),
    [
        (asyncpg_connection, {"statement_cache_size": 0}),
        (psycopg_connection, {"prepare_threshold": None}),
        (psycopg_async_connection, {"prepare_threshold": None}),
    ],
)
def test_works_through_a_transaction_pooler(
    postgres: PostgresServer, database: str, rows: Rows, opens: object, arguments: dict[str, object]
) -> None:
    with pgbouncer(postgres, "transaction") as bouncer:
        with opens(bouncer.led(database), **arguments) as caller:  # type: ignore[operator]
            ids = {caller.call(enqueue, "t", {"n": n}) for n in range(10)}
            caller.commit()
    assert set(rows()) == ids


async def test_another_schema_can_be_chosen(empty_database: str) -> None:
    await migrate(empty_database, schema="elsewhere")
    with psycopg.connect(empty_database) as connection:
        one = enqueue(connection, "t", schema="elsewhere")
        many = enqueue_many(connection, [{"topic": "u"}], schema="elsewhere")
        found = connection.execute("select message_id from elsewhere.message order by seq").fetchall()
    assert [row[0] for row in found] == [one, *many]
