"""Dead letters: found, shown whole, put back under their old identity, deleted; in bulk, interrupted, and with guards."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from anyio import to_thread

from outbox.cli.batches import BATCH
from outbox.model.events import SourceReady
from outbox.model.sink import Rejected
from outbox.store.dead_letters import DeadLetters, Filter
from outbox.store.messages import Burial, Retry
from tests.cli.test_cli import outbox
from tests.support.commands import Command
from tests.support.eventually import eventually
from tests.support.running import counts, enqueue, running
from tests.support.sinks import deliver_all
from tests.support.sql import Clock, clock, connected

NULL = {"OUTBOX_SINK": "tests.support.sinks:null_sink"}
FORGETFUL = {"OUTBOX_SINK": "tests.support.sinks:forgetful_sink"}
EVERY = 5000


@pytest.fixture
async def worker(database: str) -> AsyncIterator[Clock]:
    """Its clock is the server's, as the commands' is."""
    async with clock(database, name="alice") as worker:
        worker.store.now = None
        yield worker


@pytest.fixture
def letters(worker: Clock) -> DeadLetters:
    return DeadLetters(worker.pool, "outbox")


async def bury(
    worker: Clock,
    *topics: str,
    kind: str = "KIND",
    detail: str = "detail",
    reason: Any = "rejected",
    died_s_ago: float = 0.0,
    **columns: str,
) -> list[UUID]:
    """Enqueue, claim and bury a message of each topic, for real. `columns` are further arguments of enqueue, in SQL."""
    more = "".join(f", {name} => {value}" for name, value in columns.items())
    await worker.pool.fetch(f"select outbox.enqueue(topic{more}) from unnest($1::text[]) as topic", topics)
    messages = await worker.claim(limit=len(topics))
    assert len(messages) == len(topics)
    await worker.store.bury([Burial(message, reason, True, kind, detail) for message in messages])
    ids = [message.message_id for message in messages]
    if died_s_ago:
        await worker.pool.execute(
            "update outbox.dead_letter set died_at = died_at - make_interval(secs => $2) where message_id = any ($1)",
            ids,
            died_s_ago,
        )
    return ids


async def tried_long_ago(worker: Clock, hours: float, *ids: UUID) -> None:
    """Move the first attempt back in time."""
    await worker.pool.execute(
        """
        update outbox.dead_letter set errors = jsonb_set(errors, '{0,at}', to_jsonb(now() - make_interval(secs => $2 * 3600)))
        where message_id = any ($1)
        """,
        ids,
        hours,
    )


async def rows(worker: Clock, table: str) -> dict[UUID, dict[str, Any]]:
    return {row["message_id"]: dict(row) for row in await worker.pool.fetch(f"select * from outbox.{table}")}


# Finding


async def test_each_filter_narrows_and_all_must_hold(worker: Clock, letters: DeadLetters) -> None:
    [created] = await bury(worker, "orders.created", kind="INVALID_ARGUMENT", key="'k1'", died_s_ago=3 * 86_400)
    [paid] = await bury(worker, "orders.paid", kind="NOT_FOUND", reason="exhausted", key="'k2'", died_s_ago=3600)
    [other] = await bury(worker, "ordersX", kind="QUARANTINED", reason="quarantined")

    async def find(limit: int | None = None, **which: Any) -> list[UUID]:
        return [found.message_id for found in await letters.find_dead_letters(Filter(**which), limit)]

    assert await find() == [other, paid, created]
    assert await find(limit=2) == [other, paid]
    assert await find(topic="orders.paid") == [paid]
    assert await find(topic="orders.*") == [paid, created]
    assert await find(topic="order.*") == await find(topic="orders") == []
    assert await find(kind="INVALID_ARGUMENT") == [created]
    assert await find(reason="quarantined") == [other]
    assert await find(key="k2") == [paid]
    assert await find(older_than_s=1800) == [paid, created]
    assert await find(newer_than_s=86_400) == [other, paid]
    assert await find(older_than_s=1800, newer_than_s=86_400) == [paid]
    assert await find(message_ids=[created, other, uuid4()]) == [other, created]
    assert await find(message_ids=[created, other], topic="orders.*") == [created]
    assert await find(topic="orders.*", kind="NOT_FOUND", key="k1") == []


async def test_a_topic_with_wildcards_of_like_is_matched_literally(worker: Clock, letters: DeadLetters) -> None:
    [right] = await bury(worker, "a_b%.x")
    await bury(worker, "aXbY.x")
    found = await letters.find_dead_letters(Filter(topic="a_b%.*"))
    assert [letter.message_id for letter in found] == [right]


async def test_list_shows_every_id_whole_on_a_narrow_terminal_and_the_totals(worker: Clock, database: str) -> None:
    long, key = "a.very.long.topic.that.does.not.fit", "'a-key-with-words'"
    ids = [(await bury(worker, long, kind="A_RATHER_LONG_KIND_OF_ERROR", key=key))[0] for _ in range(3)]
    await bury(worker, "other", kind="OTHER", reason="exhausted", detail="x" * 300)
    done = await outbox(database, "dead", "list", COLUMNS="80")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("3 rejected  A_RATHER_LONG_KIND_OF_ERROR  ")
    assert [line for line in lines if line.startswith("1 exhausted  OTHER")]
    assert max(map(len, lines)) <= 80
    for message_id in ids:
        [place] = [place for place, line in enumerate(lines) if line.startswith(f"{message_id} ")]
        assert lines[place].split()[-1] == "rejected"
        assert " ".join(lines[place + 1 : place + 3]).split()[:4] == [
            "A_RATHER_LONG_KIND_OF_ERROR", long, "key", "a-key-with-words"
        ]  # fmt: skip


@pytest.mark.parametrize("columns", ["120", None])
async def test_list_has_every_column_on_a_wide_terminal_or_without_one(
    worker: Clock, database: str, columns: str | None
) -> None:
    topic = "organization.created.by.import" if columns else "t" * 200
    [message_id] = await bury(worker, topic, kind="INVALID_ARGUMENT", detail="x" * 300, key="'customer-7'")
    done = await outbox(database, "dead", "list", **({"COLUMNS": columns} if columns else {}))
    assert (done.code, done.err) == (0, "")
    head, row = done.out.splitlines()[-2:]
    assert head.split() == ["message", "id", "died", "reason", "kind", "topic", "key"]
    cells = [cell for cell in row.split("  ") if cell]
    assert [cells[0], *map(str.strip, cells[2:])] == [
        str(message_id), "rejected", "INVALID_ARGUMENT", topic, "customer-7"
    ]  # fmt: skip
    assert ("x" * 300 in done.out) is (columns is None)


async def test_list_shows_twenty_and_counts_all(worker: Clock, database: str) -> None:
    ids = await bury(worker, *["t"] * 30)
    done = await outbox(database, "dead", "list")
    assert done.out.startswith("30 rejected")
    assert sum(str(message_id) in done.out for message_id in ids) == 20
    assert done.err == "outbox: 10 more are not shown: add --limit 30, or --json for all\n"
    done = await outbox(database, "dead", "list", "--limit", "25")
    assert sum(str(message_id) in done.out for message_id in ids) == 25
    assert done.err == ""


async def test_list_for_machines_is_a_line_each_without_what_the_messages_carry(worker: Clock, database: str) -> None:
    ids = await bury(worker, *["t"] * 30, payload="'{\"secret\": 1}'", headers='\'{"secret": "2"}\'')
    done = await outbox(database, "dead", "list", "--json", "--topic", "t")
    reported = [json.loads(line) for line in done.out.splitlines()]
    assert {UUID(letter["message_id"]) for letter in reported} == set(ids)
    assert "secret" not in done.out
    assert (reported[0]["reason"], reported[0]["kind"], reported[0]["detail"], reported[0]["attempts"]) == (
        "rejected",
        "KIND",
        "detail",
        1,
    )
    assert reported[0]["errors"][0]["kind"] == "KIND"


async def test_nothing_found_says_so(database: str) -> None:
    for command in ("list", "requeue", "discard"):
        done = await outbox(database, "dead", command, "--topic", "none", **NULL)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("no dead letter")
    assert (await outbox(database, "dead", "list", "--json")).out == ""


# Showing


async def test_show_shows_everything_and_every_error(worker: Clock, database: str) -> None:
    message_id = await worker.pool.fetchval(
        "select outbox.start_workflow('W', 'w-1', '{\n  \"n\": 1.50}', key => 'k', dedup_key => 'd', headers => '{\"h\": \"v\"}')"
    )
    for n in range(25):
        [message] = await worker.claim()
        await worker.store.retry([Retry(message, 0.0, n % 2 == 0, f"KIND_{n}", f"detail {n}")])
    [message] = await worker.claim()
    await worker.store.bury([Burial(message, "exhausted", True, "LAST", "moves the cursor \x1b[2J\x07")])
    done = await outbox(database, "dead", "show", str(message_id), COLUMNS="40")
    assert (done.code, done.err) == (0, "")
    for reported in (
        str(message_id),
        '"workflow_id": "w-1"',
        '"n": 1.50}',
        '{"h": "v"}',
        "exhausted",
        "by alice",
        "LAST",
    ):
        assert reported in done.out
    assert "20, the first and the latest" in done.out
    assert [n for n in range(25) if f"KIND_{n}\n" in done.out] == [0, *range(7, 25)]
    assert done.out.count("not counted") == sum(n % 2 for n in (0, *range(7, 25)))
    assert "\x1b" not in done.out
    assert r"cursor \x1b[2J\x07" in done.out
    reported = json.loads((await outbox(database, "dead", "show", "--json", str(message_id))).out.splitlines()[0])
    assert (reported["payload"], reported["headers"], reported["dedup_key"]) == ({"n": 1.5}, {"h": "v"}, "d")
    assert [error["detail"] for error in reported["errors"][:2]] == ["detail 0", "detail 7"]
    assert datetime.fromisoformat(reported["first_tried_at"]) < datetime.fromisoformat(reported["died_at"])


async def test_show_of_what_is_no_dead_letter_is_one_line_and_exit_1(worker: Clock, database: str) -> None:
    stranger, [dead] = uuid4(), await bury(worker, "t")
    done = await outbox(database, "dead", "show", str(stranger), str(dead))
    assert (done.code, done.err) == (
        1,
        f"outbox: {stranger} is no dead letter; outbox.message_life may show where it is\n",
    )
    assert str(dead) in done.out


# Putting back


async def test_requeued_message_is_the_same_message_with_nothing_counted_and_its_errors(
    worker: Clock, letters: DeadLetters
) -> None:
    [dead] = await bury(
        worker, "t", payload="'{\"n\": 1.50}'", key="'k'", dedup_key="'d'", priority="3", headers='\'{"h": "v"}\''
    )
    before = (await rows(worker, "dead_letter"))[dead]
    assert await letters.requeue([dead, uuid4()]) == {dead: True}
    after = (await rows(worker, "message"))[dead]
    same = (
        "message_id",
        "seq",
        "created_at",
        "topic",
        "key",
        "dedup_key",
        "priority",
        "target",
        "headers",
        "payload",
        "errors",
    )
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert json.loads(after["errors"])[0]["detail"] == "detail"
    assert (after["attempts"], after["deliveries"], after["lease_token"], after["worker_id"]) == (0, 0, None, None)
    assert await rows(worker, "dead_letter") == {}
    [message] = await worker.claim()
    assert (message.message_id, message.seq, message.deliveries, message.setbacks) == (dead, before["seq"], 1, 1)


async def test_requeued_messages_keep_their_places_by_number_and_are_no_alarm_for_their_age(
    worker: Clock, letters: DeadLetters
) -> None:
    ids = await bury(worker, *map(str, range(50)), died_s_ago=1e6)
    await worker.pool.execute("update outbox.dead_letter set available_at = available_at - interval '30 days'")
    await letters.requeue(ids[::-1])
    assert [message.message_id for message in await worker.claim()] == ids
    assert (await worker.overview.status())["messages"]["processing"] == 50
    assert await worker.pool.fetchval("select min(available_at) > now() - interval '1 minute' from outbox.message")


async def test_a_living_message_with_the_id_or_the_dedup_key_keeps_a_dead_one_dead(
    worker: Clock, database: str, letters: DeadLetters
) -> None:
    [same_id] = await bury(worker, "t")
    [same_key] = await bury(worker, "t", dedup_key="'d'")
    [free] = await bury(worker, "t")
    await worker.pool.execute("select outbox.enqueue('living', message_id => $1)", same_id)
    living = await worker.pool.fetchval("select outbox.enqueue('living', dedup_key => 'd')")
    found = {letter.message_id: letter.living for letter in await letters.find_dead_letters(Filter())}
    assert found == {same_id: True, same_key: True, free: False}
    assert await letters.requeue([same_id, same_key]) == {same_id: False, same_key: False}
    done = await outbox(database, "dead", "requeue", "--all", "--yes", **NULL)
    assert (done.code, done.out) == (1, "1 requeued\n")
    assert done.err == f"outbox: 2 left dead, a living message has their id or dedup_key: {same_id}, {same_key}\n"
    messages = await rows(worker, "message")
    assert {message_id: row["topic"] for message_id, row in messages.items()} == {
        same_id: "living",
        living: "living",
        free: "t",
    }
    assert set(await rows(worker, "dead_letter")) == {same_id, same_key}


async def test_of_two_dead_letters_with_one_dedup_key_the_first_goes_back(worker: Clock, letters: DeadLetters) -> None:
    [first] = await bury(worker, "t", dedup_key="'d'")
    [second] = await bury(worker, "t", dedup_key="'d'")
    assert await letters.requeue([second, first]) == {first: True, second: False}


async def test_requeue_wakes_a_worker_that_sleeps_and_the_message_is_delivered(database: str) -> None:
    async with running(database, mode="listen", poll_interval_s=600.0, fallback_interval_s=600.0) as relay:
        await relay.log.wait_for(SourceReady)
        relay.sink.answer = lambda _: Rejected("BROKEN", "until it is repaired")
        [message_id] = await enqueue(database)
        await relay.wait_buried()
        relay.sink.answer = deliver_all
        done = await outbox(database, "dead", "requeue", str(message_id), "--yes", **NULL)
        assert (done.code, done.out, done.err) == (0, "1 requeued\n", "")
        await relay.wait_completed(1)
    assert relay.sink.ids == [message_id, message_id]
    assert await counts(database) == {"message": 0, "history": 1, "dead_letter": 0}


async def test_two_requeues_at_once_put_each_back_once(worker: Clock, database: str) -> None:
    ids = await bury(worker, *["t"] * 40)
    async with connected(database) as first:
        transaction = first.transaction()
        await transaction.start()
        await first.fetch("select from outbox.dead_letter where message_id = any ($1) for update", ids[:10])
        await first.execute("delete from outbox.dead_letter where message_id = any ($1)", ids[:10])
        second = await to_thread.run_sync(_start, database, "requeue", "--all", "--yes")
        await eventually(
            lambda: worker.pool.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), bool
        )
        await transaction.commit()
    out, err = await to_thread.run_sync(second.communicate)
    assert (out, err) == (
        "30 requeued\n",
        "outbox: 10 were not dead letters any more: another command has moved them\n",
    )
    assert second.returncode == 1


# In bulk


def _start(database: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "DATABASE_", "PG"))}
    return Command(
        ["dead", *arguments],
        env=env | NULL | {"DATABASE_URL": database} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def _insist(command: subprocess.Popen[str]) -> int | None:
    """Interrupt again: two signals at once may be taken for one."""
    command.send_signal(signal.SIGINT)
    return command.poll()


@pytest.mark.parametrize("signals", [1, 2])
async def test_five_thousand_are_looked_at_interrupted_and_resumed(worker: Clock, database: str, signals: int) -> None:
    ids = await bury(worker, *["bulk"] * EVERY)
    innocent = await bury(worker, "innocent")
    dry = await outbox(database, "dead", "requeue", "--topic", "bulk", "--dry-run", **NULL)
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.splitlines()[-1] == "5000 would be requeued; nothing was done"
    assert sum(str(message_id) in dry.out for message_id in ids) == 5
    assert await counts(database) == {"message": 0, "history": 0, "dead_letter": EVERY + 1}

    async with connected(database) as holder:
        transaction = holder.transaction()
        await transaction.start()
        # A lock in the sixth batch stops the command there.
        await holder.execute("select from outbox.dead_letter where message_id = $1 for update", ids[5 * BATCH + 7])
        command = await to_thread.run_sync(_start, database, "requeue", "--topic", "bulk", "--yes")
        waiting = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        await eventually(lambda: worker.pool.fetchval(waiting), bool)
        assert (await counts(database))["message"] == 5 * BATCH
        command.send_signal(signal.SIGINT)
        if signals == 2:
            await eventually(partial(_insist, command), lambda code: code is not None)
        await transaction.rollback()
    _, err = await to_thread.run_sync(command.communicate)
    connections = (
        "select count(*) from pg_stat_activity where application_name = 'outbox cli' and datname = current_database()"
    )
    await eventually(lambda: worker.pool.fetchval(connections), lambda number: number == 0)
    assert command.returncode == 130
    [reported] = re.findall(
        r"^outbox: interrupted after (\d+) of 5000; the same command goes on with the rest$", err, re.MULTILINE
    )
    done = await counts(database)
    assert done["message"] % BATCH == 0
    assert 5 * BATCH <= int(reported) <= done["message"] <= int(reported) + (BATCH if signals == 2 else 0) < EVERY
    assert done["message"] + done["dead_letter"] == EVERY + 1

    resumed = await outbox(database, "dead", "requeue", "--topic", "bulk", "--yes", **NULL)
    assert (resumed.code, resumed.out, resumed.err) == (0, f"{EVERY - done['message']} requeued\n", "")
    assert set(await rows(worker, "message")) == set(ids)
    assert set(await rows(worker, "dead_letter")) == set(innocent)
    assert [message.message_id for message in await worker.claim(EVERY)] == ids


@pytest.mark.parametrize("verb", ["requeue", "discard"])
async def test_bulk_without_choice_or_consent_does_nothing(worker: Clock, database: str, verb: str) -> None:
    await bury(worker, "t")
    done = await outbox(database, "dead", verb, "--yes", "--limit", "1", **NULL)
    assert (done.code, done.fault) == (
        2,
        "say which dead letters: message ids, a filter such as --topic, or --all",
    )
    done = await outbox(database, "dead", verb, "--all", **NULL)
    assert done.code == 2
    assert done.err == f"outbox: nothing was done: use --yes to {verb} without being asked, or --dry-run to look\n"
    done = await outbox(database, "dead", verb, "--all", "--dry-run", **NULL)
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        f"1 would be {verb}{'d' if verb == 'requeue' else 'ed'}; nothing was done",
    )
    assert await counts(database) == {"message": 0, "history": 0, "dead_letter": 1}


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 1), ("", 1, 1)])
async def test_on_a_terminal_a_person_is_shown_what_and_asked(
    worker: Clock, database: str, answer: str, code: int, left: int
) -> None:
    [dead] = await bury(worker, "t")
    terminal, inside = pty.openpty()
    command = Command(
        ["dead", "discard", "--topic", "t"],
        env=os.environ | {"DATABASE_URL": database},
        stdin=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.write(terminal, f"{answer}\n".encode())
    out, _ = await to_thread.run_sync(command.communicate)
    os.close(terminal)
    os.close(inside)
    assert command.returncode == code
    assert str(dead) in out
    assert "Discard 1 dead letters? [y/N]" in out
    assert (await counts(database))["dead_letter"] == left
    assert ("outbox: nothing was done" in out) == bool(left)


async def test_discard_deletes_what_was_chosen_for_ever_and_nothing_else(worker: Clock, database: str) -> None:
    old = await bury(worker, *["t"] * 700, died_s_ago=3 * 86_400)
    [young] = await bury(worker, "t")
    done = await outbox(database, "dead", "discard", "--older-than", "2d", "--yes")
    assert (done.code, done.out, done.err) == (0, f"{len(old)} discarded\n", "")
    assert set(await rows(worker, "dead_letter")) == {young}
    assert await rows(worker, "message") == {}
    history = await rows(worker, "history")
    assert {message_id: row["outcome"] for message_id, row in history.items()} == dict.fromkeys(old, "discarded")


async def test_ids_that_are_no_dead_letters_are_named_and_the_others_go_on(worker: Clock, database: str) -> None:
    stranger, [dead] = uuid4(), await bury(worker, "t")
    done = await outbox(database, "dead", "requeue", str(stranger), str(dead), "--yes", **NULL)
    assert (done.code, done.out) == (1, "1 requeued\n")
    assert done.err == f"outbox: {stranger} is no dead letter; outbox.message_life may show where it is\n"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["list", "--older-than", "2 days"], "'2 days' is no duration: write it as 90s, 15m, 2h, 3d, 1w or 1d12h"),
        (["list", "--newer-than", "999999w"], "'999999w' is too long: a hundred years are the limit"),
        (["list", "--reason", "bad"], "reason is 'bad': use rejected, exhausted, quarantined or expired"),
        (["show", "x"], "'x' is no message id: it is a UUID, as `outbox dead list` and `outbox enqueue` print it"),
    ],
)
async def test_a_slip_of_the_pen_is_one_line(database: str, arguments: list[str], fault: str) -> None:
    done = await outbox(database, "dead", *arguments)
    assert (done.code, done.fault) == (2, fault)


# What the sink may have forgotten


async def test_what_was_first_tried_before_the_sinks_memory_begins_stays_dead(worker: Clock, database: str) -> None:
    old, young = await bury(worker, "t", "t")
    await tried_long_ago(worker, 25, old)
    await tried_long_ago(worker, 23, young)
    environment = FORGETFUL | {"OUTBOX_TEST_MEMORY_S": "86400"}
    refusal = (
        "outbox: 1 left dead, first tried longer ago than the sink recognises a repeat (24 h); if that try got through, "
        f"a second workflow would start; look in the sink, then use --force: {old}\n"
    )
    dry = await outbox(database, "dead", "requeue", "--all", "--dry-run", **environment)
    assert (dry.code, dry.err, dry.out.splitlines()[-1]) == (0, refusal, "1 would be requeued; nothing was done")
    done = await outbox(database, "dead", "requeue", "--all", "--yes", **environment)
    assert (done.code, done.out, done.err) == (1, "1 requeued\n", refusal)
    assert set(await rows(worker, "dead_letter")) == {old}
    done = await outbox(database, "dead", "requeue", "--all", "--yes", "--force", **environment)
    assert (done.code, done.out) == (0, "1 requeued\n")
    assert done.err.startswith("outbox: warning: 1 forced, first tried longer ago")
    assert set(await rows(worker, "message")) == {old, young}


async def test_the_first_attempt_counts_also_after_a_requeue_and_a_second_death(
    worker: Clock, letters: DeadLetters
) -> None:
    [dead] = await bury(worker, "t")
    await tried_long_ago(worker, 25, dead)
    await letters.requeue([dead])
    [message] = await worker.claim()
    await worker.store.bury([Burial(message, "rejected", True, "AGAIN", "")])
    [found] = await letters.find_dead_letters(Filter())
    assert found.first_tried_s_ago == pytest.approx(25 * 3600, abs=60)


async def test_requeue_needs_a_retention_if_the_sink_does_not_report_one(worker: Clock, database: str) -> None:
    old, young = await bury(worker, "t", "t")
    await tried_long_ago(worker, 25, old)
    done = await outbox(database, "dead", "requeue", "--all", "--yes", **FORGETFUL)
    assert (done.code, done.out) == (1, "no dead letter to requeue\n")
    [line] = done.err.splitlines()
    assert line.startswith(
        "outbox: 2 left dead, the sink did not say for how long it recognises a repeat (PERMISSION_DENIED: not for you); "
    )
    assert "give it with --retention, or use --force" in line
    done = await outbox(database, "dead", "requeue", "--all", "--yes", "--retention", "1d", **FORGETFUL)
    assert (done.code, done.out) == (1, "1 requeued\n")
    assert set(await rows(worker, "message")) == {young}
    done = await outbox(database, "dead", "requeue", "--all", "--yes", "--force", **FORGETFUL)
    assert (done.code, done.out) == (0, "1 requeued\n")


async def test_each_namespace_has_its_own_memory_and_only_starts_can_start_twice(worker: Clock, database: str) -> None:
    def target(operation: str, namespace: str) -> str:
        return (
            f'\'{{"operation": "{operation}", "workflow": "W", "workflow_id": "w", "signal": "s", '
            f'"namespace": "{namespace}"}}\''
        )

    [short] = await bury(worker, "t", target=target("start_workflow", "short"))
    [both] = await bury(worker, "t", target=target("signal_with_start_workflow", "short"))
    [signal_only] = await bury(worker, "t", target=target("signal_workflow", "short"))
    [long] = await bury(worker, "t", target=target("start_workflow", "long"))
    await tried_long_ago(worker, 25, short, both, signal_only, long)
    memories = {"OUTBOX_TEST_MEMORY_S_SHORT": "3600", "OUTBOX_TEST_MEMORY_S_LONG": "864000"}
    done = await outbox(database, "dead", "requeue", "--all", "--yes", **FORGETFUL, **memories)
    assert done.code == 1
    assert "repeat in namespace short (60 min)" in done.err
    assert set(await rows(worker, "dead_letter")) == {short, both}
    assert set(await rows(worker, "message")) == {signal_only, long}
