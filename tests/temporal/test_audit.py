"""`outbox audit` on real servers: it finds each planted fault, and nothing among a hundred honest messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import time
from typing import Any
from uuid import UUID, uuid4

import anyio
import orjson
import pytest
from anyio import to_thread
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    CountWorkflowExecutionsRequest,
    DeleteWorkflowExecutionRequest,
    DescribeWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from outbox.cli.session import with_store
from outbox.model.message import Message
from outbox.model.sink import Delivered
from outbox.store.messages import Burial
from outbox_temporal.audit import executions, reconcile
from outbox_temporal.audit.command import AuditOptions, compare
from outbox_temporal.audit.findings import AuditReport
from outbox_temporal.audit.history import AuditHistory
from outbox_temporal.sdk.worker import serving
from outbox_temporal.servers.temporal import TemporalServer
from outbox_temporal.sink import temporal_sink
from tests.cli.test_cli import Done, outbox
from tests.support.commands import Command
from tests.support.eventually import eventually
from tests.support.running import Running, fetch, running, settings
from tests.support.sinks import FakeSink
from tests.support.sql import Clock, clock, connected
from tests.temporal.conftest import CONTEXT
from tests.temporal.definitions import Collects, ContinuesOnce, Echo, FailsOnce

pytestmark = pytest.mark.timeout(150)
QUEUE = "audited"
START = "select outbox.start_workflow($1, $2, task_queue => 'unserved') as id"
ROUTES = """
[[route]]
topic = "order.made"
workflow = "Echo"
workflow_id = "order-{n}"
task_queue = "audited"

[[route]]
topic = "order.reported"
operation = "signal_workflow"
workflow_id = "long-{n}"
signal = "finish"
arguments = "none"
"""
FIRST = r"""
select outbox.start_workflow('Echo', 'echo-' || n, to_json(n), task_queue => 'audited') from generate_series(1, 43) n;
select outbox.start_workflow('ContinuesOnce', 'long-' || n, 'true', task_queue => 'audited') from generate_series(1, 10) n;
select outbox.start_workflow('FailsOnce', 'fails-' || n, task_queue => 'audited', retry_policy => '{"initial_interval_s": 0.01}')
from generate_series(1, 5) n;
select outbox.signal_with_start_workflow('Collects', 'cart-' || n, 'add', input => '""', signal_input => '1', task_queue => 'audited')
from generate_series(1, 5) n;
select outbox.start_workflow('Echo', '"ended\-' || n, task_queue => 'unserved') from generate_series(1, 5) n;
select outbox.start_workflow('Echo', 'there-' || n, task_queue => 'unserved', namespace => 'second') from generate_series(1, 5) n;
select outbox.enqueue('order.made', json_build_object('n', n)) from generate_series(1, 5) n;
select outbox.start_workflow('Collects', 'joined', task_queue => 'audited');
"""
THEN = r"""
select outbox.signal_with_start_workflow('Collects', 'cart-' || n, 'add', input => '""', signal_input => '"stop"', task_queue => 'audited')
from generate_series(1, 5) n;
select outbox.terminate_workflow('"ended\-' || n) from generate_series(1, 5) n;
select outbox.signal_workflow('long-' || n, 'finish') from generate_series(1, 5) n;
select outbox.enqueue('order.reported', json_build_object('n', n)) from generate_series(6, 8) n;
select outbox.start_workflow('Echo', 'echo-' || n, task_queue => 'audited') from generate_series(1, 2) n;
select outbox.start_workflow('Collects', 'joined', task_queue => 'audited', id_conflict_policy => 'use_existing');
"""
HONEST_STARTS, HONEST, HONEST_RUNS = 87, 100, 43 + 20 + 10 + 5 + 5 + 5 + 1 + 1


@pytest.fixture(scope="module")
def server() -> Iterator[TemporalServer]:
    """A server with namespaces that hold only what a test of this file puts there."""
    with TemporalServer.start(
        ui=False, in_memory=True, namespaces=["first", "second", "small", "rest", "ghosts", "pruned", "buried"]
    ) as server:
        yield server


class World:
    """An outbox and a namespace of its own."""

    def __init__(self, dsn: str, server: TemporalServer, client: Client, environment: pytest.MonkeyPatch) -> None:
        self.dsn, self.server, self.client, self.environment = dsn, server, client, environment
        self.relay: Running | None = None

    async def audit(self, *arguments: str, **more: str) -> Done:
        """Run the command."""
        named = {name: os.environ[name] for name in ("OUTBOX_ROUTES",) if name in os.environ}
        named |= {"TEMPORAL_ADDRESS": self.server.address, "TEMPORAL_NAMESPACE": self.client.namespace}
        return await outbox(self.dsn, "audit", "--rate", "1000", *arguments, **(named | more))

    async def found(self, *arguments: str, code: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What the command finds, without what is younger than nothing at all; and its summary."""
        done = await self.audit("--settle", "0s", "--json", *arguments)
        assert (done.code, done.err) == (code, ""), done
        *findings, summary = map(json.loads, done.out.splitlines())
        return findings, summary

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[Running]:
        """A worker for the block, as the environment says at its beginning."""
        async with running(self.dsn, factory=temporal_sink) as relay:
            self.relay = relay
            yield relay
        self.relay = None

    async def commit(self, script: str) -> None:
        async with connected(self.dsn) as connection:
            await connection.execute(script)

    async def start(self, workflow_id: str, workflow: str = "Echo", more: str = "") -> UUID:
        """A message that is delivered; its id."""
        if self.relay is None:
            async with self.relaying():
                return await self.start(workflow_id, workflow, more)
        statement = START.replace("task_queue", f"{more}, task_queue") if more else START
        [row] = await fetch(self.dsn, statement, workflow, workflow_id)
        relay = self.relay
        await relay.log.wait_until(lambda: row["id"] in relay.completed, what=workflow_id, timeout_s=60)
        return row["id"]

    async def by_hand(
        self, workflow_id: str, message_id: UUID | None = None, workflow: str = "Echo", queue: str = "unserved"
    ) -> WorkflowHandle[Any, Any]:
        """A workflow started by hand, with a forged memo if a message id is given."""
        return await self.client.start_workflow(
            workflow,
            id=workflow_id,
            task_queue=queue,
            memo=None if message_id is None else {"outbox_message_id": str(message_id)},
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )

    async def delete(self, workflow_id: str) -> None:
        """Have Temporal forget a workflow, and wait until it has."""
        request = DeleteWorkflowExecutionRequest(
            namespace=self.client.namespace, workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
        await self.client.workflow_service.delete_workflow_execution(request)

        async def gone() -> bool:
            try:
                await self.client.get_workflow_handle(workflow_id).describe()
            except RPCError:
                return not [each async for each in self.client.list_workflows(f"WorkflowId = '{workflow_id}'")]
            return False

        await eventually(gone, bool)

    async def shows(self, runs: int, query: str = "") -> None:
        """Wait until Temporal's list shows so many runs."""
        request = CountWorkflowExecutionsRequest(namespace=self.client.namespace, query=query)

        async def count() -> int:
            return (await self.client.workflow_service.count_workflow_executions(request)).count

        await eventually(count, lambda n: n == runs)


@asynccontextmanager
async def world(
    dsn: str, server: TemporalServer, namespace: str, environment: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    environment.setenv("TEMPORAL_ADDRESS", server.address)
    environment.setenv("TEMPORAL_NAMESPACE", namespace)
    environment.setenv("OUTBOX_TEMPORAL_ALLOWED_NAMESPACES", "second")
    yield World(dsn, server, await Client.connect(server.address, namespace=namespace), environment)


async def make_honest(here: World) -> None:
    """A hundred messages of every kind, delivered, and what becomes of their workflows."""
    workflows = [Echo, ContinuesOnce, FailsOnce, Collects]
    async with serving(Worker(here.client, task_queue=QUEUE, workflows=workflows)):
        async with here.relaying() as relay:
            await here.commit(FIRST)
            await relay.wait_completed(79, timeout_s=60)
            await here.commit(THEN)
            await relay.wait_completed(100, timeout_s=60)
        await here.client.get_workflow_handle("echo-1").result()
        reset = ResetWorkflowExecutionRequest(
            namespace=here.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id="echo-1"),
            workflow_task_finish_event_id=4,
            request_id=str(uuid4()),
        )
        await here.client.workflow_service.reset_workflow_execution(reset)
        await here.shows(HONEST_RUNS)
        await here.shows(1, "ExecutionStatus = 'Running' AND WorkflowType = 'Collects'")


class Faults:
    """Plants one of each, and keeps in mind what the audit must find."""

    def __init__(self, here: World, worker: Clock) -> None:
        self.here, self.worker = here, worker
        self.planted: Counter[tuple[str, str]] = Counter()

    def plant(self, workflow_id: str, *kinds: str) -> None:
        self.planted.update((kind, workflow_id) for kind in kinds)

    async def deleted(self) -> None:
        await self.here.start("missing")
        await self.here.delete("missing")
        self.plant("missing", "missing")

    async def delivered_elsewhere(self) -> None:
        """By a worker with another namespace than this command's."""
        self.here.environment.setenv("TEMPORAL_NAMESPACE", "second")
        await self.here.start("elsewhere")
        self.here.environment.setenv("TEMPORAL_NAMESPACE", self.here.client.namespace)
        self.plant("elsewhere", "elsewhere")

    async def deleted_and_started_again(self) -> None:
        await self.here.start("replaced")
        await self.here.delete("replaced")
        await self.here.by_hand("replaced")
        self.plant("replaced", "replaced")

    async def history_with_another_run(self) -> None:
        message_id = await self.here.start("tampered")
        await fetch(
            self.here.dsn, "update outbox.history set run_id = gen_random_uuid() where message_id = $1", message_id
        )
        self.plant("tampered", "replaced")

    async def another_type_and_queue_under_the_id(self) -> None:
        await self.here.by_hand("mistyped", workflow="Refund", queue="refunds")
        await self.here.start("mistyped", more="id_conflict_policy => 'use_existing'")
        self.plant("mistyped", "wrong-type", "wrong-queue", "shared")

    async def history_with_another_type(self) -> None:
        message_id = await self.here.start("retold")
        await fetch(self.here.dsn, "update outbox.history set workflow = 'Refund' where message_id = $1", message_id)
        self.plant("retold", "wrong-type")

    async def second_chain_under_the_id(self) -> None:
        message_id = await self.here.start("again", more="id_reuse_policy => 'allow_duplicate'")
        await self.here.client.get_workflow_handle("again").terminate()
        await self.here.by_hand("again", message_id)
        self.plant("again", "twice")

    async def second_chain_under_another_id(self) -> None:
        message_id = await self.here.start("own")
        await self.here.by_hand("not-its-own", message_id)
        self.plant("not-its-own", "twice")

    async def id_taken(self) -> None:
        await self.here.by_hand("taken")
        await self.here.start("taken")
        self.plant("taken", "taken")

    async def foreign_memo(self) -> None:
        await self.here.by_hand("forged", uuid4())
        message_id = await self.here.start("disowned")
        await fetch(self.here.dsn, "delete from outbox.history where message_id = $1", message_id)
        self.plant("forged", "ghost")
        self.plant("disowned", "ghost")

    async def old_history(self) -> None:
        """What is older than the namespace's retention of a day, and gone."""
        message_id = await self.here.start("forgotten")
        await self.here.delete("forgotten")
        statement = (
            "update outbox.history set {0} = {0} - interval '25 h', {1} = {1} - interval '25 h' where message_id = $1"
        )
        await fetch(self.here.dsn, statement.format("settled_at", "claimed_at"), message_id)
        self.plant("forgotten", "forgotten")

    async def undelivered(self) -> None:
        """Workers that die between Temporal's answer and its being written down."""
        names = {
            "dead": 'dead "\\',
            "unsettled": "unsettled",
            "cancelled": "cancelled",
        }  # one that no list can be asked for
        dead, _, cancelled = [await self.got_through(name) for name in names.values()]
        await self.worker.store.bury([Burial(dead, "quarantined", False, "QUARANTINED", "workers died")])
        await self.worker.store.release([cancelled])
        await fetch(self.here.dsn, "select outbox.cancel($1)", cancelled.message_id)
        for kind, name in names.items():
            self.plant(name, kind)

    async def got_through(self, workflow_id: str) -> Message:
        await fetch(self.here.dsn, START, "Echo", workflow_id)
        [message] = await self.worker.claim()
        async with temporal_sink(CONTEXT) as sink:
            assert isinstance(await sink.deliver(message), Delivered)
        return message


@pytest.fixture
def routed(environment: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    (tmp_path / "outbox.toml").write_text(ROUTES, encoding="utf-8")
    environment.setenv("OUTBOX_ROUTES", str(tmp_path / "outbox.toml"))
    return environment


async def test_each_planted_fault_is_found_and_nothing_else_among_a_hundred_sound_messages(
    database: str, server: TemporalServer, routed: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "first", routed) as here, clock(database) as worker:
        worker.store.now = None
        await make_honest(here)
        findings, summary = await here.found(code=0)
        assert Counter((each["kind"], each["workflow_id"]) for each in findings) == {
            ("shared", "echo-1"): 1,
            ("shared", "echo-2"): 1,
            ("shared", "joined"): 1,
        }
        assert (summary["faults"], summary["complete"]) == (0, True)
        assert summary["messages"] == HONEST_STARTS
        assert summary["runs"] == HONEST_RUNS + 5  # those in the namespace `second`
        assert await fetch(database, "select count(*) from outbox.history") == [(HONEST,)]

        faults = Faults(here, worker)
        async with here.relaying(), anyio.create_task_group() as tasks:
            for plant in (
                faults.deleted,
                faults.deleted_and_started_again,
                faults.history_with_another_run,
                faults.another_type_and_queue_under_the_id,
                faults.history_with_another_type,
                faults.second_chain_under_the_id,
                faults.second_chain_under_another_id,
                faults.id_taken,
                faults.foreign_memo,
                faults.old_history,
            ):
                tasks.start_soon(plant)
        await faults.delivered_elsewhere()
        await faults.undelivered()
        findings, summary = await here.found("--since", "2d", code=1)
        found = Counter((each["kind"], each["workflow_id"]) for each in findings)
        for honest in ("echo-1", "echo-2", "joined"):
            assert found.pop(("shared", honest)) == 1
        assert found == faults.planted
        assert summary["found"] == dict(Counter(each["kind"] for each in findings))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconcile, "_PAGE", 7)
            patch.setattr(reconcile, "_TOGETHER", 3)
            patch.setattr(executions, "_PAGE", 5)
            report, wish = AuditReport(1000), AuditOptions("2d", "0s", 0.0, (), (), (), None, 1000.0, 4)
            await with_store(settings(database), AuditHistory, partial(compare, wish, 30, report))
        assert dict(report.counts) == summary["found"]
        assert (report.messages, report.runs) == (summary["messages"], summary["runs"])

        done = await here.audit("--settle", "0s", "--since", "2d")
        assert (done.code, done.err) == (1, "")
        lines = done.out.splitlines()
        for kind, workflow_id in faults.planted:
            [line] = [
                line
                for line in lines
                if line.startswith(f"{kind}  ") and f"/{workflow_id} " in line.replace(",", " ").replace(":", " ")
            ]
            assert "; " in line  # what is wrong, and what to do


async def test_workflows_of_a_type_or_prefix_that_no_message_started_are_reported_on_request(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "small", environment) as here:
        await here.start("order-honest", "Order")
        await here.by_hand("order-direct", workflow="Order")
        odd = "mail's %_! – é"  # a quote of Temporal's queries, and what else may mean something there
        await here.by_hand(odd, workflow="Mail")
        await here.by_hand("mail-forged", uuid4(), workflow="Mail")
        await here.shows(4)

        async def strangers(*arguments: str) -> set[tuple[str, str]]:
            findings, _ = await here.found(*arguments, code=1)
            return {(each["kind"], each["workflow_id"]) for each in findings}

        assert await strangers("--type", "Order") == {("stranger", "order-direct")}
        both = {("stranger", odd), ("ghost", "mail-forged")}
        assert await strangers("--prefix", odd[:-1], "--prefix", "mail-", "--type", "Order") == both | {
            ("stranger", "order-direct")
        }
        done = await here.audit("--settle", "1h")  # all of it is too young
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[-1] == "no fault found"


async def test_missing_workflows_are_looked_up_in_parallel_and_reported_in_order(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    """Each missing workflow is a question of its own; one after the other they took a day for some millions."""
    asked, most, together = 0, 0, anyio.Event()
    described = executions.Executions._described

    async def counted(self: executions.Executions, request: DescribeWorkflowExecutionRequest) -> object:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        if asked == 4:
            together.set()
        await together.wait()  # in a row none of them would ever come back
        try:
            return await described(self, request)
        finally:
            asked -= 1

    async with world(database, server, "rest", environment) as here:
        sink = FakeSink(lambda message: Delivered(orjson.loads(message.target or "")["workflow_id"], str(uuid4())))
        for number in range(40):
            await fetch(here.dsn, START, "Echo", f"gone-{number:02}")
        async with running(here.dsn, sink) as relay:
            await relay.wait_completed(40)
        gone = [row[0] for row in await fetch(here.dsn, "select workflow_id from outbox.history order by message_id")]
        environment.setattr(executions.Executions, "_described", counted)
        found: list[str] = []
        report = AuditReport(1000, show=lambda finding: found.append(finding.workflow_id))
        wish = AuditOptions("2d", "0s", 0.0, (), (), ("gone-",), None, 1000.0, 4)  # others use the namespace too
        with anyio.fail_after(60):
            await with_store(settings(database), AuditHistory, partial(compare, wish, 30, report))
    assert found == gone
    assert most == 4  # --concurrency


async def test_an_interrupted_audit_shows_what_it_has_found(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "rest", environment) as here:
        await here.start("missing")
        await here.delete("missing")
        # The second list is ten seconds away.
        command = ["audit", "--json", "--settle", "0s", "--rate", "0.1"]
        env = os.environ | {"DATABASE_URL": database}
        with Command(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            first = json.loads(await to_thread.run_sync(process.stdout.readline))
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            out, err = await to_thread.run_sync(process.communicate)
    assert (first["kind"], first["workflow_id"]) == ("missing", "missing")
    summary = json.loads(out)
    assert (summary["faults"], summary["complete"]) == (1, False)
    assert err == "outbox: interrupted: this is what was found so far\n"
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "more", "code", "says"),
    [
        (("--since", "1h", "--until", "2h"), {}, 2, "--since 1h and --until 2h leave no time between them"),
        (
            (),
            {"TEMPORAL_ADDRESS": "127.0.0.1:1"},
            1,
            "Temporal cannot be reached: 127.0.0.1:1: refused, nothing listens there: check TEMPORAL_ADDRESS",
        ),
        ((), {"TEMPORAL_NAMESPACE": "nowhere"}, 1, "describe namespace nowhere: NOT_FOUND"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    database: str,
    server: TemporalServer,
    environment: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    more: dict[str, str],
    code: int,
    says: str,
) -> None:
    async with world(database, server, "rest", environment) as here:
        done = await here.audit(*arguments, **more)
    assert done.code == code
    assert done.fault.startswith(says)


async def test_a_namespace_that_only_messages_name_and_that_is_gone_is_left_out_with_a_line(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "rest", environment) as here:
        message_id = await here.start(f"moved-{uuid4()}")
        await fetch(database, "update outbox.history set namespace = 'gone' where message_id = $1", message_id)
        done = await here.audit("--settle", "0s", "--since", "1m", "--prefix", "moved-")
    assert done.code == 1
    assert done.err.startswith("outbox: not compared: describe namespace gone: NOT_FOUND: ")


async def test_ghosts_are_listed_terminated_on_request_and_their_duplicates_are_faults(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "ghosts", environment) as here:
        await here.start("kept")
        lost = await here.start("lost")
        gone = await here.start("stays")
        repeated = await here.start("lost")  # the transaction was repeated with other data
        await here.commit(f"delete from outbox.history where message_id in ('{lost}', '{gone}')")
        await here.shows(3)
        findings, _ = await here.found("--type", "Echo", code=1)
        assert {(each["kind"], each["workflow_id"], each["message_id"]) for each in findings} == {
            ("ghost", "lost", str(lost)),
            ("ghost", "stays", str(gone)),
            ("taken", "lost", str(repeated)),
        }
        done = await here.audit("--settle", "0s", "--terminate-ghosts")
        assert (done.code, "--type" in done.fault) == (2, True)
        done = await here.audit("--settle", "0s", "--terminate-ghosts", "--prefix", "lost")
        assert (done.code, done.err.count(": terminated"), done.err.count("\n")) == (1, 1, 1)
        ended = {
            name: (await here.client.get_workflow_handle(name).describe()).status for name in ("kept", "lost", "stays")
        }
        running_, terminated = WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.TERMINATED
        assert ended == {"kept": running_, "lost": terminated, "stays": running_}
        done = await here.audit("--settle", "0s", "--terminate-ghosts", "--prefix", "lost")
        assert "lost" in done.err
        assert "not terminated: it has ended" in done.err


async def test_workflow_with_pruned_history_is_no_ghost(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch
) -> None:
    async with world(database, server, "pruned", environment) as here:
        three_days_ago = int((time() - 3 * 86_400) * 1000)
        old = UUID(int=three_days_ago << 80 | UUID("00000000-0000-7000-8000-000000000001").int)
        await here.by_hand("pruned-1", old)
        await here.shows(1, "WorkflowId STARTS_WITH 'pruned-'")
        await here.commit("select outbox.create_history_partitions(0, now() - interval '3 days')")
        findings, _ = await here.found("--prefix", "pruned-", code=1)
        assert [(each["kind"], each["message_id"]) for each in findings] == [("ghost", str(old))]
        await here.commit("select outbox.drop_history_partition(part, now()) from outbox.old_history_partitions(now())")
        findings, _ = await here.found("--prefix", "pruned-", code=0)
        assert findings == []
        done = await here.audit("--settle", "0s", "--terminate-ghosts", "--prefix", "pruned-")
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", ["dead discard --all", "prune --dead-older-than 0s"])
async def test_deleted_dead_letter_leaves_no_ghost(
    database: str, server: TemporalServer, environment: pytest.MonkeyPatch, command: str
) -> None:
    async with world(database, server, "buried", environment) as here:
        message_id = await here.start(f"buried-{command}")
        await here.commit(f"""
            insert into outbox.dead_letter (message_id, seq, created_at, available_at, claimed_at, died_at, deliveries, attempts, priority,
                                            reason, topic, headers, target, errors)
            select message_id, seq, created_at, available_at, claimed_at, now(), 1, 1, 0, 'exhausted', topic, '{{}}',
                   json_build_object('operation', operation, 'workflow', workflow, 'workflow_id', workflow_id), '[]'
            from outbox.history where message_id = '{message_id}';
            delete from outbox.history where message_id = '{message_id}';
        """)
        await here.shows(1, f"WorkflowId = 'buried-{command}'")
        done = await outbox(here.dsn, *command.split(), "--yes")
        assert (done.code, done.err) == (0, "")
        assert await fetch(here.dsn, "select from outbox.dead_letter") == []
        done = await here.audit("--settle", "0s", "--json", "--terminate-ghosts", "--prefix", f"buried-{command}")
        assert ("terminated" in done.err, [line["kind"] for line in map(json.loads, done.out.splitlines()[:-1])]) == (
            False,
            ["cancelled"],
        )
